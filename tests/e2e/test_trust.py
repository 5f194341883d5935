"""The bound on wrong hits with everything real: a stream of known answers, feedback, what is told, and edits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.running_gateway import ROOT, RunningGateway
from tests.e2e.program import ATLAS, MINILM, Answered, call, chat, config, metric, needs, started, text_of, until

FIRST, OTHER = "What is the capital of Portugal?", "Tell me the capital city of Portugal"
PLAIN = "semantic: {embedder: minilm, ttl: 1h, budget: 2s}"
BOUND = (
    "semantic: {embedder: minilm, ttl: 1h, budget: 5s, max_wrong_hits: 1%,"
    " audit: {start_share: 100%, max_per_minute: 6000}}"
)


def bounded(directory: Path, semantic: str = BOUND) -> str:
    """Write a config that promises something."""
    text = config(directory, MINILM, ATLAS, semantic=True)
    assert PLAIN in text
    return text.replace(PLAIN, semantic)


def certificate(gateway: RunningGateway) -> Any:
    """Return the certificate of the only namespace, once no audit is under way; None before there is one."""
    told = call(gateway.url, "GET", "/admin/cache/certificate?namespace=chat/atlas/").json()["namespaces"]
    return told[0] if told and not told[0]["audits_under_way"] else None


def hit(gateway: RunningGateway) -> Answered:
    """Ask one question and then another wording of it, which is a hit."""
    text_of(chat(gateway.url, "atlas", FIRST))
    answered = chat(gateway.url, "atlas", OTHER)
    assert "detail=semantic" in answered.headers["cache-status"], answered.headers
    return answered


def test_the_bound_holds_in_a_stream_whose_answers_change_half_way(tmp_path: Path) -> None:
    """A short stream is certified before its world changes and closed after; no bound that was stated was untrue."""
    needs("minilm", "atlas")
    file = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "scripts.evaluate_bound", "--requests", "1500", "--every", "100", "--model", "world",
        "--changed", "20%", "--target", "2%", "--start-share", "100%", "--judged-by", "cosine",
        "--json", str(file),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    points = figures["checkpoints"]
    assert figures["verdict"]["certificate_below_truth"] == 0
    assert figures["end"]["failed"] == 0
    assert any(point["certificate"]["status"] == "certified" for point in points if point["phase"] == 1)
    assert points[-1]["certificate"]["status"] == "exact-only"
    assert all(point["share"] <= 0.02 for point in points)


def test_feedback_removes_a_pair_for_good_also_after_a_kill(tmp_path: Path) -> None:
    """A pair that was told to be wrong is served no more: not at once, and not by the next process."""
    needs("minilm", "atlas")
    text = config(tmp_path, MINILM, ATLAS, semantic=True)
    with started(text, tmp_path) as (gateway, _):
        request = hit(gateway).headers["x-request-id"]
        told = call(gateway.url, "POST", "/admin/cache/feedback", {"request_id": request, "wrong": True})
        assert told.json() == {"removed": "pair", "kept": True}
        gateway.process.kill()
        gateway.process.wait()
    with started(text, tmp_path) as (gateway, _):
        text_of(chat(gateway.url, "atlas", FIRST))
        again = chat(gateway.url, "atlas", OTHER)
        assert "detail=semantic" not in again.headers["cache-status"]
        assert "refused-pair" in again.headers["x-warmgate-cache"]
        unknown = call(gateway.url, "POST", "/admin/cache/feedback", {"request_id": "nobody", "wrong": True})
        assert (unknown.status, unknown.error["code"]) == (404, "request_not_found")


def test_what_is_served_is_told_audited_and_kept_over_an_edit(tmp_path: Path) -> None:
    """A hit says why in a header, in full by its id, and in the certificate once audited; an edit forgets nothing."""
    needs("minilm", "atlas")
    with started(bounded(tmp_path), tmp_path) as (gateway, _):
        answered = hit(gateway)
        line = answered.headers["x-warmgate-cache"]
        assert line.startswith("semantic; sim=0.9")
        assert line.endswith("; starting; audit")
        full = call(gateway.url, "GET", f"/admin/explain/{answered.headers['x-request-id']}").json()
        assert (full["asked"], full["candidates"][0]["text"], full["line"]) == (OTHER, FIRST, line)

        said = until(lambda: certificate(gateway), "the audit has ended")
        assert (said["status"], said["audited"], said["wrong"], said["served"]["hits"]) == ("starting", 1, 0, 1)
        assert metric(gateway.url, "warmgate_cache_audits_total", result="same") == 1
        assert metric(gateway.url, "warmgate_cache_wrong_bound", namespace="chat/atlas/") == 1

        near = chat(gateway.url, "atlas", "What is the capital of Peru?")
        assert near.headers["x-warmgate-cache"].startswith("miss; reason=")
        tier = call(gateway.url, "GET", "/admin/cache").json()["tiers"]["semantic"]
        asked = tier["hits"] + tier["misses"]
        assert (tier["hits"], sum(tier["reasons_of_misses"].values())) == (1, tier["misses"])
        assert tier["hit_ratio"] == round(1 / asked, 4)
        assert tier["entries"] >= 1
        assert 0 < tier["bytes"] <= tier["budget"]

        (tmp_path / "config.yaml").write_text(bounded(tmp_path, BOUND.replace("1%,", "3%,")), encoding="utf-8")
        until(
            lambda: call(gateway.url, "GET", "/admin/cache/certificate").json()["target"] == 0.03,
            "the edit is in force",
        )
        assert certificate(gateway)["audited"] == 1


def test_an_exact_answer_that_is_told_to_be_wrong_is_removed(tmp_path: Path) -> None:
    """The next one who asks the same is answered by the model."""
    needs("minilm", "atlas")
    with started(bounded(tmp_path), tmp_path) as (gateway, _):
        text_of(chat(gateway.url, "atlas", FIRST))
        again = chat(gateway.url, "atlas", FIRST)
        assert "detail=exact" in again.headers["cache-status"]
        body = {"request_id": again.headers["x-request-id"], "wrong": True}
        assert call(gateway.url, "POST", "/admin/cache/feedback", body).json()["removed"] == "entry"
        assert "fwd=miss" in chat(gateway.url, "atlas", FIRST).headers["cache-status"]
