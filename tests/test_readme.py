"""Runs the commands of the README and of the native API's page, and compares what they print.

In a fenced block marked `console`, a line that begins with `$ ` is a command, which goes on in indented lines; those
below are what it prints, where `…` stands for anything, also for several lines. The commands run in their order against
one gateway that serves the quickstart's config; one that begins with `scripts/` is only looked up.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.running_gateway import ROOT, quickstart_config, running
from tests.e2e.program import needs

PAGES = ("README.md", "docs/native.md")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"(localhost|127\.0\.0\.1):8080")
DEADLINE_S = 150


@dataclass(frozen=True, slots=True)
class Shown:
    """A command as the README shows it, and what it prints there; nothing: not shown."""

    command: str
    printed: str


def shown_in(page: str) -> list[Shown]:
    """Return the commands of a page's console blocks."""
    found = []
    for block in BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.split("\n")
            end = next(place for place, line in enumerate(lines) if place and not line.startswith(" "))
            found.append(Shown("\n".join(lines[:end]), "\n".join(lines[end:]).strip()))
    return found


def matches(shown: str, printed: str) -> bool:
    """Tell whether the output is what is shown; line ends and the space around it do not matter."""
    pattern = ".*".join(re.escape(part.strip()) for part in shown.split("…"))
    return re.fullmatch(pattern, printed.replace("\r\n", "\n").strip(), re.DOTALL) is not None


def run(command: str, address: str) -> str:
    """Run a command in the repository's root, against our gateway and with our interpreter."""
    own = PORT.sub(address, command).replace(".venv/bin/warmgate", f"{sys.executable} -m gateway.main")
    done = subprocess.run(
        ["bash", "-c", own], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout.replace(address, "localhost:8080")


def test_blocks_are_read() -> None:
    """Commands, continued ones too, are told from what they print, in console blocks alone."""
    page = "```console\n$ one\n$ two \\\n    more\nprinted\n\n…\n```\n```sh\n$ not this\n```\n"

    assert shown_in(page) == [Shown("one", ""), Shown("two \\\n    more", "printed\n\n…")]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a\r\nb\n", True),
        ("a…c", "a b\nc", True),
        ("…\nb", "x\ny\nb", True),
        ("a", "a b", False),
        ("a (b)…", "a (b)", True),
        ("a.c", "abc", False),
    ],
)
def test_dots_stand_for_anything(shown: str, printed: str, same: bool) -> None:
    """Only `…` gives room; all else is compared as it stands."""
    assert matches(shown, printed) == same


@pytest.mark.e2e
@pytest.mark.parametrize("page", PAGES)
def test_a_page_tells_the_truth(tmp_path: Path, page: str) -> None:
    """Every command works, and prints what the page says that it prints."""
    needs("minilm", "verifier", "intents", "atlas")
    if not shutil.which("curl"):
        pytest.skip("the commands need curl")
    commands = shown_in((ROOT / page).read_text(encoding="utf-8"))
    assert commands
    with running(quickstart_config(tmp_path), tmp_path) as gateway:
        for shown in commands:
            if shown.command.startswith("scripts/"):
                assert (ROOT / shown.command.split()[0]).is_file(), shown.command
                continue
            printed = run(shown.command, gateway.url.removeprefix("http://"))
            assert not shown.printed or matches(shown.printed, printed), f"$ {shown.command}\n{printed}"
