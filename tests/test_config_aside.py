"""Calls that may hang: their results and errors come, and what hangs holds up neither who asks nor the end."""

import asyncio
import subprocess
import sys
import threading

import pytest

from config.aside import Aside, HangsError

HANG = """
import asyncio, threading
from config.aside import Aside, HangsError

async def main():
    aside = Aside(0.01)
    for _ in range(20):
        try:
            await aside.call(threading.Event().wait)
        except HangsError:
            print("hangs")
    aside.close()

asyncio.run(main())
"""


async def test_results_and_errors_come_back() -> None:
    """A call returns what the function returns, and raises what it raises, also where that is a TimeoutError."""
    aside = Aside()
    assert await aside.call(divmod, 7, 2) == (3, 1)
    assert await aside.call(int, "ff", base=16) == 255
    for error in (ValueError, TimeoutError, SystemExit):
        with pytest.raises(error, match="mine"):
            await aside.call(_raise, error("mine"))
    aside.close()


def _raise(error: BaseException) -> None:
    raise error


async def test_calls_go_on_once_what_hung_has_ended() -> None:
    """While one hangs others are told so and never run; after its end the next one is done."""
    aside, may_end, done = Aside(0.01), threading.Event(), list[int]()
    for number in range(20):
        with pytest.raises(HangsError, match=r"0\.01 s"):
            await aside.call(may_end.wait if number == 0 else lambda: done.append(1))
    may_end.set()

    while True:
        try:
            assert await aside.call(str, 5) == "5"
        except HangsError:
            continue
        break
    assert done == []
    aside.close()


def test_the_process_ends_though_a_call_hangs() -> None:
    """A thread that never returns is not waited for."""
    ended = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=240, check=True)
    assert ended.stdout.split() == ["hangs"] * 20
    assert ended.stderr == ""


async def test_a_closed_one_ends_its_thread() -> None:
    """Nothing is left of one that is not used any more."""
    aside = Aside()
    thread = await aside.call(threading.current_thread)
    aside.close()
    thread.join(90)
    assert not thread.is_alive()


async def test_a_cancellation_that_comes_with_the_result_is_not_lost() -> None:
    """Who is told to end in the moment in which an answer comes ends all the same."""
    aside, may_end = Aside(), threading.Event()
    calling = asyncio.ensure_future(aside.call(may_end.wait))
    await asyncio.sleep(0)
    may_end.set()
    aside.close()
    for thread in threading.enumerate():
        if thread.name == "aside":
            thread.join(90)
    asyncio.get_running_loop().call_soon(calling.cancel)  # behind the result, before who waits for it

    with pytest.raises(asyncio.CancelledError):
        await calling
