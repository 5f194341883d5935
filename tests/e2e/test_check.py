"""`warmgate check` beside the real program: what an edit that is not saved yet would change in it."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.program import ECHO, config, started


def check(file: Path, *options: str) -> list[str]:
    """Run the check as operators do, and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.main", "check", str(file), *options], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_an_edit_is_told_before_it_is_saved(tmp_path: Path) -> None:
    """Asked by its URL, the running gateway is compared with a file, one line for each change; itself, with none."""
    text = config(tmp_path, ECHO)
    with started(text, tmp_path) as (gateway, _):
        edit = tmp_path / "edit.yaml"
        edit.write_text(text.replace("queue: 1", "queue: 2"), encoding="utf-8")
        assert check(edit, "--url", gateway.url)[1:] == [
            f"against {gateway.url} (generation 1):",
            "  models.echo.pool.queue: 1 → 2: takes effect at once, without a restart",
        ]
        assert check(tmp_path / "config.yaml", "--url", gateway.url)[2:] == ["  nothing changes"]
