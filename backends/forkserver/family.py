"""The processes below this one: tying a child's life to ours, finding what a child left behind, ending it all.

Knows the operating system, and nothing of why a process runs.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Container

import psutil

MARKER = "WARMGATE_CHILD"
"""A command child and all it starts carry this variable; its value names the child, whatever session they move to."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends; Linux alone can, elsewhere init adopts them."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL when the parent ends; Linux alone can. `parent_pid` guards against its having ended already."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def signal_group(pid: int, number: int) -> None:
    """Signal the group that `pid` leads; nothing happens where it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def signal_child(pid: int, number: int) -> None:
    """Signal the group of a child that was not reaped yet, and so keeps its number; just forked, it leads none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)


def orphans(known: Container[int], living_markers: Container[str]) -> list[int]:
    """Return the adopted processes whose command child has ended; `known` are the children that we forked ourselves.

    One that hides its environment is left alone: it goes when this process does.
    """
    return [
        child.pid
        for child in psutil.Process().children()
        if child.pid not in known and (marker := _marker(child)) is not None and marker not in living_markers
    ]


def kill_marked(markers: Container[str]) -> None:
    """SIGKILL every process that carries one of `markers`; for the case that no parent of theirs is left to do it."""
    for process in psutil.process_iter():
        if (marker := _marker(process)) is not None and marker in markers:
            with contextlib.suppress(psutil.Error):
                process.kill()


def kill_descendants(clock: Callable[[], float], deadline_s: float) -> None:
    """SIGKILL and reap everything below us, until nothing is left or `deadline_s` has passed.

    A process that forks while we look is found in the next round: its end hands its children to us.
    """
    give_up = clock() + deadline_s
    while clock() < give_up:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except (psutil.Error, OSError):
        return None
