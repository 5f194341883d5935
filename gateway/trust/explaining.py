"""Says why a search by meaning served an answer or not: in a line for a header, and in full for the operator. Pure."""

import dataclasses
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from cache.semantic.evidence import Evidence, Match
from cache.semantic.guards import judge_all
from cache.semantic.judging import LEAST_SIMILARITY
from cache.trust.contract import Decision
from gateway.query import Sought

_MOST_LINE = 240
# Of what a header can carry all but the sign of what it cannot.
_AS_IT_IS = string.punctuation.replace("%", " ")
_HALF_A_BYTE = re.compile("%[0-9A-F]?$")
_IN_THE_WAY = {
    "refused-pair": "was wrong before: this pair is never served again",
    "exact-only": "would need fresh labels: the namespace is served exact answers only",
    "request": "would hit but for the Cache-Control of the request",
    "gone": "would hit had its answer not gone",
    "unaudited": "would hit were there audits left to watch over it",
}


@dataclass(frozen=True, slots=True)
class Weighed:
    """A candidate without its answer: what is remembered of it."""

    text: str
    similarity: float
    margin: float
    confidence: float | None
    decision: Decision | None
    vetoes: tuple[tuple[str, str], ...]


def weighed(evidence: Evidence) -> Weighed:
    """Return what is to be remembered of a candidate."""
    vetoes = tuple((veto.guard, veto.reason) for veto in evidence.vetoes)
    return Weighed(evidence.text, evidence.similarity, evidence.margin, evidence.confidence, evidence.decision, vetoes)


def line(sought: Sought) -> str:
    """Write what a search came to as the value of a header: `semantic; sim=0.941; conf=0.993; tau=0.97; …`."""
    found = sought.found
    if isinstance(found, Match):
        parts = ["semantic", *_figures(found.best), found.decision.reason]
        if found.decision.audit:
            parts.append("audit")
    else:
        parts = ["miss", f"reason={found.reason}"]
        if found.best is not None:
            parts += _figures(found.best)
            parts.append(f'"{_plain(counterfactual(weighed(found.best)))}"')
        if found.explore:
            parts.append("explore")
    return _cut("; ".join(parts))


def counterfactual(candidate: Weighed) -> str:
    """Say what would have had to be otherwise for a candidate to be served; empty where it was."""
    if candidate.vetoes:
        return "; ".join(f"blocked by {guard}: {reason}" for guard, reason in candidate.vetoes)
    decision = candidate.decision
    if decision is None or candidate.confidence is None:
        return "is another question" if candidate.similarity < LEAST_SIMILARITY else "was not judged"
    if decision.reason == "below-threshold":
        return f"would hit at tau<={_figure(candidate.confidence)}"
    return _IN_THE_WAY.get(decision.reason, "")


def in_full(asked: str, candidate: Weighed) -> Mapping[str, Any]:
    """Return all that can be said of a candidate, every guard's verdict on the two texts included."""
    return {
        "text": candidate.text,
        "similarity": candidate.similarity,
        "margin": candidate.margin,
        "confidence": candidate.confidence,
        "decision": None if candidate.decision is None else dataclasses.asdict(candidate.decision),
        "vetoes": [{"guard": guard, "reason": reason} for guard, reason in candidate.vetoes],
        "guards": [dataclasses.asdict(verdict) for verdict in judge_all(candidate.text, asked)],
        "counterfactual": counterfactual(candidate),
    }


def _figures(evidence: Evidence) -> list[str]:
    parts = [f"sim={_figure(evidence.similarity)}"]
    if evidence.confidence is not None:
        parts.append(f"conf={_figure(evidence.confidence)}")
    if evidence.decision is not None:
        parts.append(f"tau={_figure(evidence.decision.threshold)}")
    return [*parts, f"margin={_figure(evidence.margin)}"]


def _figure(value: float) -> str:
    # Cut and not rounded up: what would hit at a threshold must be no less than it.
    return f"{int(value * 1000) / 1000:g}"


def _plain(text: str) -> str:
    """Return words that may hold a client's own as a header can carry them: beyond ASCII as bytes (RFC 3986 §2.1)."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return quote(shown.replace('"', "'").replace("\\", "/"), safe=_AS_IT_IS)


def _cut(text: str) -> str:
    """Return as much of a line as a header gets, and no letter of it half."""
    if len(text) <= _MOST_LINE:
        return text
    return quote(unquote(_HALF_A_BYTE.sub("", text[:_MOST_LINE]), errors="ignore"), safe=_AS_IT_IS)
