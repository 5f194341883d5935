"""What ties a child to us: open while the child lives, and nothing of it where there is none."""

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from backends.forkserver.tether import tethered


def open_files() -> set[str]:
    """Return the files that this process has open."""
    return {each.name for each in Path("/proc/self/fd").iterdir()}


async def closed(before: set[str]) -> None:
    """Return once no more files are open than before; a pipe closes within the loop's next round."""
    async with asyncio.timeout(20):
        while open_files() - before:  # noqa: ASYNC110 - nothing tells of that
            await asyncio.sleep(0)


async def test_a_child_keeps_its_ends_and_we_ours():
    """Once it is started we hold no end of its: the pipe ends with the child, and the socket too."""
    async with tethered() as (ours, theirs, output):
        child = [os.dup(theirs.fileno()), os.dup(output.fd)]
    assert theirs.fileno() == -1
    with pytest.raises(ValueError, match="has been released"):
        _ = output.fd
    assert not ours.getblocking()

    os.write(child[1], b"its last words")
    for number in child:
        os.close(number)
    await output.drain(20)
    assert output.text() == "its last words"
    assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""
    ours.close()
    output.close()


async def test_nothing_is_left_open_where_no_child_was_started():
    """The pair and the pipe are closed, and why there is no child is told."""
    before = open_files()
    with pytest.raises(RuntimeError, match="no child"):
        async with tethered():
            raise RuntimeError("no child")
    await closed(before)


async def test_nothing_is_left_open_where_files_run_out_half_way(monkeypatch):
    """The pipe could be had and the sockets could not: the pipe goes too, when every file counts."""

    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = open_files()
    monkeypatch.setattr(socket, "socketpair", none_left)
    with pytest.raises(OSError, match="Too many"):
        async with tethered():
            raise AssertionError("there is nothing to tie a child with")
    await closed(before)
