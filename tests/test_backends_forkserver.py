"""The fork server: children come up, their ends are told, and nothing outlives whoever was killed."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from backends.contract import StartFailed
from backends.forkserver import family
from backends.forkserver.client import ForkServer
from backends.tail import OutputTail
from tests import toys

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENV = {"PATH": os.defpath}
ROOT = Path("/")


async def until(condition, deadline_s=20.0) -> None:
    """Return as soon as the condition holds."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110  # a foreign process raises no event here
            await asyncio.sleep(0.01)


def gone(processes) -> bool:
    """Tell whether none of the processes runs; one that nobody has reaped yet does not run."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def sleepers(pid) -> list[psutil.Process]:
    """Return the processes below `pid` that have become `sleep`: before that, forks are still under way."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if each.name() == "sleep" else []
    return found


def marked(marker) -> list[psutil.Process]:
    """Return the processes that carry a command's marker."""
    return [each for each in psutil.process_iter() if family._marker(each) == marker]


def _read(path) -> str:
    return Path(path).read_text()


def _descriptors(pid) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[ForkServer]:
    server = ForkServer(os.environ)
    await server.start()
    yield server
    await server.close(10)


@pytest_asyncio.fixture(loop_scope="module", name="output")
async def _output() -> AsyncIterator[OutputTail]:
    output = await OutputTail.open()
    yield output
    output.close()


async def run(server, script, output, env=()):
    """Spawn a shell script."""
    return await server.spawn_command(["sh", "-c", script], env=ENV | dict(env), cwd=ROOT, output_fd=output.fd)


async def test_a_command_runs_with_its_environment_and_directory(server, output, tmp_path):
    """A command sees exactly the environment and directory given, an empty stdin, and its output reaches the tail."""
    script = "pwd; echo $COLOUR $PYTHONPATH $ORT_DISABLE_TELEMETRY; cat; echo err >&2"
    child = await server.spawn_command(
        ["sh", "-c", script], env={**ENV, "COLOUR": "blue"}, cwd=tmp_path, output_fd=output.fd
    )
    output.release()

    assert await child.wait() == 0
    await output.drain(5)
    assert output.text() == f"{tmp_path}\nblue\nerr"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15)])
async def test_the_exit_status_is_told(server, output, script, status):
    """`wait` returns the exit code, or minus the signal."""
    child = await run(server, script, output)

    assert await child.wait() == status
    assert child.returncode == status


@pytest.mark.parametrize(
    ("argv", "cwd", "words"),
    [
        (["no-such-program"], "/", "cannot run 'no-such-program' in /: No such file"),
        (["ls"], "/no/such/directory", "cannot run 'ls' in /no/such/directory: No such file"),
        (["/etc/passwd"], "/", "Permission denied"),
    ],
)
async def test_a_command_that_cannot_run_is_refused_with_the_reason(server, output, argv, cwd, words):
    """Where the program cannot be executed, spawning raises StartFailed with its name and the reason."""
    with pytest.raises(StartFailed, match=words):
        await server.spawn_command(argv, env=ENV, cwd=Path(cwd), output_fd=output.fd)


async def test_a_child_leads_a_session_and_inherits_nothing(server, output):
    """A command leads its own session and group, has three descriptors, and reacts to signals as by default."""
    child = await run(server, "exec sleep 1000", output)
    ignored = next(line for line in _read(f"/proc/{child.pid}/status").splitlines() if line.startswith("SigIgn"))

    assert (os.getsid(child.pid), os.getpgid(child.pid)) == (child.pid, child.pid)
    assert len(_descriptors(child.pid)) == 3
    assert int(ignored.split()[1], 16) == 0
    await child.kill()


async def test_many_children_at_once(server, output):
    """Spawns that overlap each get their own child and their own status."""
    spawned = await asyncio.gather(*(run(server, f"exit {n}", output) for n in range(20)))

    assert [await child.wait() for child in spawned] == [*range(20)]
    assert len({child.pid for child in spawned}) == 20


async def test_large_environments_and_arguments_arrive(server, output):
    """An order larger than the socket's buffer arrives whole, with its descriptor."""
    env = {f"V{n}": "x" * 10_000 for n in range(60)}
    child = await run(server, "test ${#V59} = 10000", output, env)

    assert await child.wait() == 0


async def test_terminate_lets_a_child_end_by_itself(server, output):
    """SIGTERM comes first: a child that handles it in time ends with its own status."""
    child = await run(server, "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done", output)
    await until(output.text)

    assert await child.terminate(20) == 5


async def test_terminate_kills_the_group_of_a_child_that_will_not_end(server, output):
    """After the grace, what ignores SIGTERM is killed, and its group with it."""
    child = await run(server, "trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.01; done", output)
    await until(output.text)
    group = psutil.Process(child.pid).children()

    assert await child.terminate(0.05) == -signal.SIGKILL
    await until(lambda: gone(group))


async def test_the_end_of_a_command_ends_what_it_left(server, output):
    """When a command ends, its background children, those in other sessions and its orphans end too."""
    child = await run(server, "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &); echo up; cat /dev/zero", output)
    await until(lambda: len(sleepers(server.pid)) == 3)
    left = marked(child.marker)
    await child.kill()
    await until(lambda: gone(left))


async def test_one_command_s_end_leaves_another_s_orphans_alone(server, output):
    """A daemon that a living command has started stays when another command ends."""
    first = await run(server, "(setsid sleep 1000 &); echo up; sleep 1000", output)
    await until(lambda: len(sleepers(server.pid)) == 2)
    second = await run(server, "exit 0", output)
    await second.wait()

    assert len(marked(first.marker)) == 3
    await first.kill()


async def test_a_spawn_that_nobody_waits_for_is_killed(server, output):
    """When the caller of a spawn is cancelled, the child that comes after all is killed."""
    task = asyncio.create_task(run(server, "sleep 1000", output))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    process = psutil.Process(server.pid)
    await (await run(server, "exit 0", output)).wait()
    await until(lambda: process.children() == [])


async def test_a_worker_ends_when_its_socket_closes(server, output, tmp_path):
    """A worker whose gateway's end of the socket closes ends by itself, with status 0."""
    ours, theirs = socket.socketpair()
    child = await server.spawn_worker(toys.spec(toys.embedder(tmp_path)), theirs, output.fd)
    theirs.close()
    ours.close()

    assert await child.wait() in (0, 1)


async def test_a_worker_holds_no_other_child_s_socket(server, output, tmp_path):
    """Workers that are forked from one burst of orders hold their own socket only."""
    toys.embedder(tmp_path)
    pairs = [socket.socketpair() for _ in range(3)]
    spawned = await asyncio.gather(
        *(server.spawn_worker(toys.spec(tmp_path), theirs, output.fd) for _, theirs in pairs)
    )
    for ours, theirs in pairs:
        theirs.close()
        await asyncio.to_thread(ours.recv, 1)
    sockets = [sum(each.startswith("socket:") for each in _descriptors(child.pid)) for child in spawned]
    for ours, _ in pairs:
        ours.close()

    assert sockets == [1, 1, 1]
    for child in spawned:
        await child.wait()


async def test_children_know_no_python_path_and_send_no_telemetry():
    """The fork server's environment has no PYTHON* variable, one thread a library, and the runtime's telemetry off."""
    server = ForkServer({**os.environ, "PYTHONPATH": "/nowhere"})
    await server.start()
    seen = psutil.Process(server.pid).environ()
    threads = psutil.Process(server.pid).num_threads()
    await server.close(10)

    assert not [name for name in seen if name.startswith("PYTHON")]
    assert (seen["ORT_DISABLE_TELEMETRY"], seen["OMP_NUM_THREADS"], threads) == ("1", "1", 1)


async def test_the_fork_server_ignores_ctrl_c(server, output):
    """SIGINT, which a terminal sends to everybody, does not end the fork server: the gateway decides."""
    os.kill(server.pid, signal.SIGINT)

    assert await (await run(server, "exit 3", output)).wait() == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_end_of_the_fork_server_ends_its_children(output, number):
    """Children of a fork server that is killed or told to end are gone, wherever they hid, and the next spawn works."""
    server = ForkServer(os.environ)
    try:
        child = await run(server, "setsid sleep 1000 & (setsid sleep 1000 &); echo up; sleep 1000", output)
        await until(lambda: len(sleepers(server.pid)) == 3)
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        first_pid = server.pid
        os.kill(first_pid, number)

        assert await child.wait() == -signal.SIGKILL
        await until(lambda: gone(processes))
        assert server.pid is None
        assert await (await run(server, "exit 4", output)).wait() == 4
        assert server.pid not in (None, first_pid)
    finally:
        await server.close(10)


async def test_spawns_under_way_fail_when_the_fork_server_dies(output):
    """An order that a dead fork server will not carry out raises StartFailed rather than wait."""
    server = ForkServer(os.environ)
    await server.start()
    os.kill(server.pid, signal.SIGSTOP)
    spawning = asyncio.create_task(run(server, "exit 0", output))
    await asyncio.sleep(0)
    os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(StartFailed, match=r"the fork server (ended with status -9|has just ended)"):
        await spawning
    await server.close(10)


async def test_closing_ends_children_and_refuses_more(output):
    """After `close` no child is left, later spawns hear that the server shuts down, and closing twice is harmless."""
    server = ForkServer(os.environ)
    child = await run(server, "setsid sleep 1000 & sleep 1000", output)
    await until(lambda: len(sleepers(server.pid)) == 2)
    processes = psutil.Process(server.pid).children(recursive=True)
    spawning = asyncio.create_task(run(server, "sleep 1000", output))
    await asyncio.sleep(0)
    await server.close(10)

    assert gone(processes)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(StartFailed):
        await spawning
    with pytest.raises(StartFailed, match="shutting down"):
        await run(server, "exit 0", output)
    await server.close(10)


async def test_closing_during_the_start_leaves_nothing(output):
    """A close while the process still imports leaves no process, and the spawn that started it fails."""
    server = ForkServer(os.environ)
    before = set(psutil.Process().children())
    spawning = asyncio.create_task(run(server, "sleep 1000", output))
    await until(lambda: set(psutil.Process().children()) - before)
    started = set(psutil.Process().children()) - before
    await server.close(10)

    with pytest.raises(StartFailed):
        await spawning
    assert gone(started)


async def test_a_start_that_fails_says_why():
    """A fork server that cannot come up raises StartFailed with its last lines."""
    server = ForkServer(os.environ)
    server._environment["PYTHONHOME"] = "/nowhere"
    with pytest.raises(StartFailed, match="the fork server ended with status 1; its last output:"):
        await server.start()
    await server.close(1)


async def _stand_in(directory) -> tuple[asyncio.subprocess.Process, int, list[psutil.Process]]:
    """Start the stand-in gateway; return it and every process below it once all are there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    script = str(Path(__file__).with_name("gateway_stand_in.py"))
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", script, str(directory)), stdout=asyncio.subprocess.PIPE, env=environment
    )
    async with asyncio.timeout(90):
        server_pid = int((await gateway.stdout.readline()).split()[0])
    await until(lambda: len(sleepers(gateway.pid)) == 3)
    return gateway, server_pid, psutil.Process(gateway.pid).children(recursive=True)


async def test_kill_9_of_the_gateway_leaves_no_process(tmp_path):
    """When the gateway is killed, its fork server ends every worker and command, and all that those started."""
    gateway, _, below = await _stand_in(toys.embedder(tmp_path))
    gateway.kill()
    await gateway.wait()

    await until(lambda: gone(below))


async def test_kill_9_of_gateway_and_fork_server_ends_the_children(tmp_path):
    """When both are killed at once, the kernel ends the worker and the command that the fork server was a parent of."""
    gateway, server_pid, below = await _stand_in(toys.embedder(tmp_path))
    direct = psutil.Process(server_pid).children()
    adopted = [each for each in direct if each.name() == "sleep"]
    os.kill(gateway.pid, signal.SIGSTOP)
    os.kill(server_pid, signal.SIGKILL)
    gateway.kill()
    await gateway.wait()

    await until(lambda: gone(each for each in direct if each not in adopted))
    for stray in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            stray.kill()
