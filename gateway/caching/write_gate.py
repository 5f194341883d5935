"""Decides whether an answer may be remembered: complete, nobody's refusal, and as its request wanted it. Pure.

Knows no store. What an upstream got wrong, a call of a tool or a text that was to be JSON, is not repeated to others.
"""

from collections.abc import Mapping

from gateway.analyze import Features
from gateway.answer import Answer
from gateway.caching.wanted import wrong_call, wrong_choice, wrong_text
from gateway.surfaces.choices import Choice, choices_of

_WHOLE = ("stop", "tool_calls")


def write_gate(features: Features, answer: Answer) -> str | None:
    """Return why this answer must not be remembered, or None: only complete, successful answers are."""
    if not features.cacheable:
        return features.reason
    unkept = answer.head.unkept
    if unkept and (unkept != "no-store" or features.keeping.obey_upstream):
        return unkept
    reasons = answer.reasons()
    if not reasons or not answer.choices() <= reasons.keys():
        return "incomplete"
    allowed = (*_WHOLE, "length") if features.truncated else _WHOLE
    cut = next((reason for reason in reasons.values() if reason not in allowed), None)
    if cut is not None:
        return f"finish_reason {cut}"
    return next(filter(None, (_wrong(choice, features.wanted) for choice in choices_of(answer.events).values())), None)


def _wrong(choice: Choice, wanted: Mapping[str, object]) -> str | None:
    """Return what is wrong with a complete choice, or None; of a text that was cut off no JSON is expected."""
    if choice.refusal:
        return "refusal"
    if choice.finish == "tool_calls" and not choice.calls:
        return "no call"
    if choice.finish != "length" and (trouble := wrong_choice([call.name for call in choice.calls], wanted)):
        return trouble
    if choice.calls:
        return next(filter(None, (wrong_call(call.name, call.arguments, wanted) for call in choice.calls)), None)
    return None if choice.finish == "length" else wrong_text(choice.text, wanted)
