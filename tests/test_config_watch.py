"""The watch on the config file: which looks at it make a change, and that real edits of every kind are seen."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.watch import GONE_AFTER_S, LOOK_EVERY_S, Watch, digest_at, digest_of, gone
from tests.fakes import run_virtual

GONE_LOOKS = round(GONE_AFTER_S / LOOK_EVERY_S)
AWAY = gone("No such file or directory")
LOOP = gone("Too many levels of symbolic links")


class Over(Exception):
    """Ends a watch whose script is at its end."""


def told(looks: Iterable[str], seen: str | None = None) -> list[str]:
    """Return what a watch tells that finds this, a look at a time."""
    script = iter(looks)

    async def look(path: Path) -> str:
        for found in script:
            return found
        raise Over

    async def main() -> list[str]:
        changes: list[str] = []
        watch = Watch(Path("f"), seen, look=look).changes()
        with suppress(Over):
            while True:
                changes.append(await anext(watch))
        return changes

    return run_virtual(main())


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ("aaa", ""),
        ("abb", "b"),
        ("abbb", "b"),
        ("abcdd", "d"),
        ("abab", ""),
        ("abbaa", "ba"),
        ("ab", ""),
    ],
)
def test_a_content_counts_once_two_looks_agree(looks: str, expected: str) -> None:
    """A content that is replaced before the next look is never told; the one that stays is told once."""
    assert told(looks) == list(expected)


def test_edits_before_the_first_look_are_told() -> None:
    """An owner that says which content it has read is told of one that came before the watch began."""
    assert told("bb", seen="a") == ["b"]
    assert told("aa", seen="a") == []


def test_a_file_that_is_missing_for_a_moment_is_no_change() -> None:
    """A gap in which the file is replaced is not told, nor is the return of the same content."""
    assert told(["a", AWAY, "a", AWAY, AWAY, "b", "b"]) == ["b"]


def test_a_file_that_stays_away_is_gone_and_may_come_back() -> None:
    """A missing file is told once, after some looks; its return is a change, even with the content from before."""
    assert told(["a", *[AWAY] * (GONE_LOOKS - 1), "a"]) == []
    assert told(["a", *[AWAY] * (GONE_LOOKS + 5), "a", "a"]) == [AWAY, "a"]


def test_another_reason_why_a_file_stays_away_is_told() -> None:
    """What is at the path instead counts once two looks agree, as a content does."""
    assert told(["a", *[AWAY] * (GONE_LOOKS + 5), LOOP, AWAY, LOOP, LOOP, LOOP]) == [AWAY, LOOP]


def test_what_the_owner_could_not_read_is_told_again() -> None:
    """After `forget` the content that was told last counts as a new one."""

    async def main() -> list[str]:
        async def look(path: Path) -> str:
            return "b"

        watch = Watch(Path("f"), "a", look=look)
        changes = watch.changes()
        first = await anext(changes)
        watch.forget()
        return [first, await anext(changes)]

    assert run_virtual(main()) == ["b", "b"]


def test_what_is_no_file_is_told_by_its_reason(tmp_path: Path) -> None:
    """A pipe, a device, a directory, a loop of symlinks and an impossible name are told of; none of them blocks."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, words in (
        (tmp_path / "pipe", "it is no regular file"),
        (Path("/dev/zero"), "it is no regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "loop", "Too many levels of symbolic links"),
        (tmp_path / "none", "No such file or directory"),
        (Path("a\0b"), "embedded null byte"),
    ):
        assert digest_at(path) == gone(words)


@given(st.lists(st.sampled_from("abc"), min_size=1), st.sampled_from("abc"))
def test_whatever_happens_it_settles_on_what_stays(looks: list[str], last: str) -> None:
    """After any edits, the last that was told (or the first content) is the one that the file ends with."""
    first = looks[0]
    assert [first, *told([*looks, last, last])][-1] == last


def write_in_place(path: Path, text: str) -> None:
    """Open, truncate and write."""
    path.write_text(text, encoding="utf-8")


def rename_over(path: Path, text: str) -> None:
    """Write beside and rename, as editors do."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def remove_and_write(path: Path, text: str) -> None:
    """Leave the file missing for a moment."""
    path.unlink()
    path.write_text(text, encoding="utf-8")


def swap_directory(path: Path, text: str) -> None:
    """Point the symlink of the directory elsewhere, as a mounted volume does: `f.yaml` → `..data/f.yaml`."""
    directory = path.parent / f"..{digest_of(text.encode())[:8]}"
    directory.mkdir()
    (directory / path.name).write_text(text, encoding="utf-8")
    fresh = path.parent / "..data_tmp"
    fresh.symlink_to(directory.name)
    fresh.replace(path.parent / "..data")


def keep_size_and_time(path: Path, text: str) -> None:
    """Write text of the same size, and put the time of the last change back."""
    before = path.stat()
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("edit", [write_in_place, rename_over, remove_and_write, swap_directory, keep_size_and_time])
async def test_every_kind_of_real_edit_is_seen(tmp_path: Path, edit: Callable[[Path, str], None]) -> None:
    """An edit, and one after it, are told with the digest of what the file then holds."""
    path = tmp_path / "f.yaml"
    (tmp_path / "..0").mkdir()
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "..0/f.yaml").write_text("0", encoding="utf-8")
    if edit is swap_directory:
        path.symlink_to("..data/f.yaml")
    else:
        path.write_text("0", encoding="utf-8")
    changes = Watch(path, digest_of(b"0"), every_s=0.01).changes()
    for text in ("1", "2"):
        edit(path, text)
        assert await within_deadline(anext(changes)) == digest_of(text.encode())
    await changes.aclose()


async def within_deadline(what: Awaitable[str]) -> str:
    """Wait for something that comes, for as long as a slow machine may need."""
    async with asyncio.timeout(90):
        return await what
