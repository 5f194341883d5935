"""The replay of 300 questions against a gateway of its own: hits, and never a wrong one."""

import json
import subprocess
import sys
from pathlib import Path

from scripts.running_gateway import ROOT
from tests.e2e.program import needs


def test_replay_finds_hits_and_no_wrong_ones(tmp_path: Path) -> None:
    """Every repeat of a complete answer is a hit, many other wordings are, and no near miss is served another's."""
    needs("minilm", "verifier", "intents", "atlas")
    command = [sys.executable, "-m", "scripts.replay", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert (figures["all"]["n"], figures["all"]["wrong_hits"], figures["all"]["failed"]) == (300, 0, 0)
    repeats = figures["kinds"]["repeat"]
    assert repeats["exact"] + repeats["semantic"] >= 0.95 * repeats["n"]
    assert figures["kinds"]["paraphrase"]["semantic"] > 0
    assert figures["latencies_ms"]["exact"]["p50"] < figures["latencies_ms"]["miss"]["p50"]
