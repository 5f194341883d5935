"""The verifier of pairs with everything real: its worker judges what no sure guard vetoes."""

from pathlib import Path

from scripts.running_gateway import ROOT
from tests.e2e.program import ATLAS, MINILM, call, chat, config, needs, started, text_of

VERIFIER = f"  verifier: {{task: infer, onnx: {{path: {ROOT / 'var/models/verifier'}}}}}"
PLAIN = "semantic: {embedder: minilm, ttl: 1h, budget: 2s}"
JUDGED = "semantic: {embedder: minilm, verifier: verifier, ttl: 1h, budget: 5s}"
FIRST = "How do I learn Python?"
# Other words with content of their own: the strict guards would veto this one.
PARAPHRASE = "What is the best way to learn Python?"
# The embedder sees one and the same unknown word, or takes what tells them apart away: to it each pair is one text.
UNREAD = (
    ("วันนี้อากาศเป็นอย่างไร", "ฉันควรกินยาแก้ปวดกี่เม็ด"),
    ("Is 🍒 edible?", "Is 🍄 edible?"),
    ("Wie kann ich drucken?", "Wie kann ich drücken?"),
    (f"What is {'A' * 120}?", f"What is {'B' * 120}?"),
    ("What is AIDS?", "What is aids?"),
)
NEAR_MISS = "How long does it take to learn Python?"


def test_a_paraphrase_is_served_and_a_near_miss_is_not(tmp_path: Path) -> None:
    """What the verifier is sure of is served with its confidence; one answer more is made for what it doubts."""
    needs("minilm", "atlas", "verifier")
    text = config(tmp_path, MINILM, ATLAS, VERIFIER, semantic=True)
    assert PLAIN in text
    with started(text.replace(PLAIN, JUDGED), tmp_path) as (gateway, _):
        text_of(chat(gateway.url, "atlas", FIRST))

        served = chat(gateway.url, "atlas", PARAPHRASE)
        assert "detail=semantic" in served.headers["cache-status"], served.headers
        assert "conf=0.9" in served.headers["x-warmgate-cache"]
        listed = call(gateway.url, "GET", "/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["minilm", "atlas"]
        assert call(gateway.url, "GET", "/v1/models/verifier").status == 200
        doubted = chat(gateway.url, "atlas", NEAR_MISS)
        assert "fwd=miss" in doubted.headers["cache-status"], doubted.headers
        assert "detail=semantic" in chat(gateway.url, "atlas", FIRST.upper()).headers["cache-status"]
        for one, other in UNREAD:
            chat(gateway.url, "atlas", one)
            unread = chat(gateway.url, "atlas", other)
            assert "fwd=miss" in unread.headers["cache-status"], (other, unread.headers)
        vetoed = chat(gateway.url, "atlas", "How do I learn Ruby?")
        assert "blocked by entities" in vetoed.headers["x-warmgate-cache"]
