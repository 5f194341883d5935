"""A disk that is full, or gone: the cache loses what it cannot write, and every request is served."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.replay import outcome_of
from tests.e2e.program import SERVER, chat, metric, serving, text_of, until

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}}}'
DISK_KIB = 512
ANSWER_BYTES = 16_000


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a disk of half a mebibyte."""
    with tempfile.TemporaryDirectory(prefix="warmgate-disk-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", name]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("only root may mount a small disk, where mounting is allowed at all")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def test_full_disk(small_disk: Path) -> None:
    """With more answers than the disk has room for, all are given and the latest are cached; the trouble is counted."""
    with serving(ECHO, cache=str(small_disk / "cache")) as gateway:
        questions = [f"{number} " + "x" * ANSWER_BYTES for number in range(2 * DISK_KIB * 1024 // ANSWER_BYTES)]
        for question in questions:
            assert text_of(chat(gateway.url, "echo", question)) == f"echo: {question}"

        until(lambda: metric(gateway.url, "warmgate_cache_events_total", tier="disk", event="errors"), "trouble counts")
        again = chat(gateway.url, "echo", questions[-1])
        assert outcome_of(again.headers["cache-status"]) == "exact"


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A cache directory that is none costs a warning and the disk tier, nothing else."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with serving(ECHO, cache=str(tmp_path / "file")) as gateway:
        assert text_of(chat(gateway.url, "echo", "hello")) == "echo: hello"
        assert outcome_of(chat(gateway.url, "echo", "hello").headers["cache-status"]) == "exact"
