"""When a server that we started is ready: its path answers, the port is its own, and a real inference has passed.

Knows the server by its URL alone, and nothing of how it was started.
"""

import asyncio
import logging
from collections.abc import Iterator

import psutil

from backends.contract import BackendError, BadJob, Job, Message, Sampling, StartFailed, Task
from backends.http_client import BadUrl, HttpClient
from backends.http_reply import ExchangeFailed
from backends.sleeping import StartNote
from backends.upstream import HttpBackend

POLL_FIRST_S, POLL_LAST_S = 0.02, 0.5
POLL_TIMEOUT_S = 5.0

# The first inference may compile for long, and one that was lost must not be waited for: each try gets twice as long.
TRY_FIRST_S = 20.0

_OK = 200
_SHOWN = 300

_log = logging.getLogger(__name__)


def probe_of(task: Task) -> Job | None:
    """Return the least job that runs the whole of a model; None where what its clients ask is not ours to know."""
    match task:
        case Task.CHAT:
            return Job(Task.CHAT, messages=(Message("user", "Hi"),), sampling=Sampling(max_tokens=1))
        case Task.COMPLETION:
            return Job(Task.COMPLETION, prompt="Hi", sampling=Sampling(max_tokens=1))
        case Task.EMBED:
            return Job(Task.EMBED, inputs=("Hi",))
        case _:
            return None


async def path_answers(url: str, path: str, note: StartNote) -> None:
    """Return when `path` answers 200; the pause between two tries grows. The caller limits the wait."""
    note.phase = f"{path} does not answer yet"
    client = HttpClient(url, {}, kept=1, connect_timeout_s=POLL_TIMEOUT_S, silence_s=POLL_TIMEOUT_S)
    try:
        await client.open()
        for pause_s in _growing_pauses():
            if await _is_ok(client, path, note):
                return
            await asyncio.sleep(pause_s)
    finally:
        client.close()


async def inference_passes(upstream: HttpBackend, job: Job, note: StartNote) -> None:
    """Return when a real inference has passed: a path may be green long before one can. The caller limits the wait.

    A server that understands the job and refuses just this one has shown as much as it will.
    """
    note.phase = "it answers, and its first inference has not passed yet"
    limit_s = TRY_FIRST_S
    for pause_s in _growing_pauses():
        try:
            async with asyncio.timeout(limit_s):
                await upstream.answer(job)
        except BadJob as error:
            _log.warning("the first inference was refused, and the server is taken as ready: %s", error)
            return
        except TimeoutError:
            note.phase = f"its first inference did not pass within {limit_s:g} s"
            limit_s *= 2
        except BackendError as error:
            note.phase = f"its first inference failed: {str(error)[:_SHOWN]}"
        else:
            return
        await asyncio.sleep(pause_s)


def _growing_pauses() -> Iterator[float]:
    """Yield the pauses between one try and the next, for as long as anybody tries."""
    pause_s = POLL_FIRST_S
    while True:
        yield pause_s
        pause_s = min(POLL_LAST_S, pause_s * 1.5)


def is_stolen(port: int, pid: int) -> bool:
    """Tell whether somebody who was there before the process `pid` listens on its port. Blocks.

    A younger listener outside its family may well be its own: a container's port is held by another process.
    """
    try:
        process = psutil.Process(pid)
        family = {pid, *(child.pid for child in process.children(recursive=True))}
        listeners = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid is not None
        }
        if listeners & family:
            return False
        return any(psutil.Process(other).create_time() < process.create_time() for other in listeners)
    except psutil.Error:
        return False


async def _is_ok(client: HttpClient, path: str, note: StartNote) -> bool:
    try:
        reply = await client.get(path)
    except BadUrl as error:
        raise StartFailed(str(error)) from error
    except ExchangeFailed:
        return False
    reply.leave()
    note.phase = f"{path} answers with {reply.status}"
    return reply.status == _OK
