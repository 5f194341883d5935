"""A semantic cache whose process is killed at random moments; `scripts/soak_semantic.py` does it a thousand times."""

import json
import subprocess
import sys


def test_a_kill_at_any_moment_leaves_no_wrong_unreachable_or_stale_answer(tmp_path):
    """Each life finds every answer that the store has, by its own meaning alone, and none that was removed."""
    command = [sys.executable, "-m", "tests.semantic_process", str(tmp_path), "30", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    assert ended.returncode == 0, ended.stderr[-3000:]
    counted = json.loads(ended.stdout)
    assert counted["kills"] == 30
    assert counted["checks"] > 15
    assert counted["most_entries"] > 60  # of partitions that are compared by sketches
