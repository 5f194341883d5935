"""What happens between a fork and the child's own code. Runs in the single-threaded fork server alone."""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from backends.forkserver import family
from backends.worker import main as worker_main
from backends.worker.spec import read_order

# Ours, and those that a shell or nohup may have had us ignore: a program that was not told so would ignore them too.
_RESET = (
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGXFSZ,
)


def fork_worker(order: Mapping[str, Any], connection_fd: int, output_fd: int) -> int:
    """Fork a worker that serves on `connection_fd` and prints to `output_fd`; return its pid."""
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_and_exit(lambda: _work(order, parent_pid, connection_fd, output_fd))
    return pid


def fork_command(order: Mapping[str, Any], output_fd: int) -> tuple[int, int]:
    """Fork a child that executes `argv` in a new session; return its pid and the end of a pipe.

    The pipe ends without a byte when the program has started, and with the reason where it could not.
    """
    parent_pid = os.getpid()
    failed_read, failed_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _execute(order, parent_pid, output_fd, failed_write)
    os.close(failed_write)
    return pid, failed_read


def _work(order: Mapping[str, Any], parent_pid: int, connection_fd: int, output_fd: int) -> None:
    _begin(parent_pid, output_fd)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # A copy of another child's socket would hide that child's end from the gateway.
    os.closerange(3, connection_fd)
    os.closerange(connection_fd + 1, os.sysconf("SC_OPEN_MAX"))
    connection = socket.socket(fileno=connection_fd)
    if "standby" in order:
        worker_main.stand_by(connection, tuple(order["devices"]), tuple(order["providers"]))
    else:
        worker_main.run(connection, read_order(order))


def _execute(order: Mapping[str, Any], parent_pid: int, output_fd: int, failed_fd: int) -> NoReturn:
    """Become the program, or say why not on `failed_fd`, which closes by itself when the program starts."""
    try:
        _begin(parent_pid, output_fd)
        os.chdir(order["cwd"])
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606
    except OSError as error:
        os.write(failed_fd, f"cannot run {order['argv'][0]!r} in {order['cwd']}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _begin(parent_pid: int, output_fd: int) -> None:
    """Give a fresh child its own session, its streams, and the signals that a program expects."""
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    family.die_with_parent(parent_pid)
    null_fd = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null_fd, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.close(null_fd)


def _run_and_exit(work: Callable[[], None]) -> NoReturn:
    """Run `work` and leave without the fork server's own clean-up, whatever happens."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001  # the last frame of this process: whatever it is must be printed here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
