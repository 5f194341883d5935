"""`/admin/cache/certificate`, `/admin/cache/feedback` and `/admin/explain/{id}`: what is known of hits. No server."""

import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

from cache.trust.certificate import certificate
from cache.trust.contract import Label, Pair
from cache.trust.journal import Refused
from cache.trust.live import LiveTrust
from gateway.errors import InvalidRequest, UnknownNamespace, UnknownPath, UnknownRequest
from gateway.fields import cut, parse_object, refuse, shown, text
from gateway.front import Page
from gateway.pages.loopback import only_loopback
from gateway.surfaces.wire import JSON, Call, Reply
from gateway.trust.explaining import in_full
from gateway.trust.recent import Decided, Recent, ServedHit

CERTIFICATE_PATH = "/admin/cache/certificate"
FEEDBACK_PATH = "/admin/cache/feedback"
EXPLAIN_PATH = "/admin/explain/{request}"
_WHICH_BOUND = (
    "a namespace is certified where its 'upper_bound' is at most 'target'; 'served.upper_bound' is of the hits that"
    " were served, by their audits alone: it is wide while these are few, and decides nothing"
)
# Of those that there are an error names so many.
_MOST_NAMED = 50


class TrustPages:
    """The pages by method and path; where there are no caches, or nothing is found by meaning, they say so.

    `forget` ends an entry in all caches, and tells whether that outlives a restart.
    """

    def __init__(
        self,
        recent: Recent | None,
        trust: LiveTrust | None,
        forget: Callable[[bytes], Awaitable[bool]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._recent = recent
        self._trust = trust
        self._forget = forget
        self._clock = clock

    def table(self) -> dict[tuple[str, str], Page]:
        """Return the pages by (method, path)."""
        return {
            ("GET", CERTIFICATE_PATH): self._certificate,
            ("POST", FEEDBACK_PATH): self._feedback,
            ("GET", EXPLAIN_PATH): self._explain,
        }

    async def _certificate(self, call: Call) -> Reply:
        """State of each namespace, or of the one that `namespace` names, how many hits were wrong at most."""
        only_loopback(call)
        wanted, trust, now = _namespace(call.query), self._learned(), self._clock()
        policy, states = trust.policy, sorted(trust.states())
        if wanted is not None and all(wanted != namespace for namespace, _ in states):
            known = ", ".join(f"'{cut(namespace)}'" for namespace, _ in states[:_MOST_NAMED])
            raise UnknownNamespace(f"nothing is known of a namespace '{cut(wanted)}'; there are: {known or 'none'}")
        told: dict[str, Any] = {
            "target": policy.target,
            "confidence": 1 - policy.delta,
            "judged_by": trust.version,
            "refused_pairs": trust.refused,
            "date": now,
            "note": _WHICH_BOUND,
            "namespaces": [
                {
                    **dataclasses.asdict(certificate(namespace, state, policy, now)),
                    "audits_under_way": trust.pending(namespace),
                }
                for namespace, state in states
                if policy.target is not None and wanted in (None, namespace)
            ],
        }
        return _json(told)

    async def _feedback(self, call: Call) -> Reply:
        """Take `{request_id, wrong}`: a wrong pair is never served again, a wrong exact answer is removed."""
        only_loopback(call)
        recent = self._remembered()
        body = parse_object(call.body)
        request_id, wrong = text(body, "request_id"), body.get("wrong")
        unknown = next((name for name in body if name not in ("request_id", "wrong")), None)
        if unknown is not None:
            raise InvalidRequest(f"'{cut(unknown)}' is unknown here: give request_id and wrong", unknown)
        if not isinstance(wrong, bool):
            raise refuse("wrong", wrong, "true or false")
        hit = await recent.hit(request_id)
        if hit is None:
            raise UnknownRequest(f"no hit is known of a request '{cut(request_id)}'", "request_id")
        if hit.pair is None:
            return _json(await self._take_exact(hit, wrong=wrong))
        return _json(await self._take_pair(self._learned(), hit, hit.pair, wrong=wrong))

    async def _take_exact(self, hit: ServedHit, *, wrong: bool) -> dict[str, Any]:
        if not wrong:
            return {"removed": None, "kept": True}
        kept = [await self._forget(key) for key in hit.keys]
        return {"removed": "entry", "kept": all(kept)}

    async def _take_pair(self, trust: LiveTrust, hit: ServedHit, pair: Pair, *, wrong: bool) -> dict[str, Any]:
        known, kept = trust.is_refused(pair), True
        if wrong:
            kept = await trust.refuse(Refused(pair, hit.confidence))
        if not known:
            now = self._clock()
            trust.learn(
                Label(hit.namespace, pair, hit.confidence, served=True, same=not wrong, source="feedback", at=now)
            )
        return {"removed": "pair" if wrong else None, "kept": kept}

    async def _explain(self, call: Call) -> Reply:
        """Tell all that is known of how a recent request was decided on."""
        only_loopback(call)
        request_id = call.names["request"]
        decided = self._remembered().decision(request_id)
        if decided is None:
            raise UnknownRequest(f"no decision is known of a request '{cut(request_id)}'")
        return _json({"request_id": request_id, **told_of(decided)})

    def _remembered(self) -> Recent:
        if self._recent is None:
            raise UnknownPath("nothing is cached: the config has no section 'cache'")
        return self._recent

    def _learned(self) -> LiveTrust:
        if self._trust is None:
            raise UnknownPath("nothing is found by meaning: the config has no section 'cache.semantic'")
        return self._trust


def told_of(decided: Decided) -> dict[str, Any]:
    """Return all that is known of a decision; what is of a search by meaning is null where there was none."""
    model, version, key = decided.served or (None, None, None)
    searched = decided.searched
    return {
        "at": decided.at,
        "outcome": decided.status.label(),
        "cache_status": decided.status.header(),
        "reason": decided.reason,
        "model": model,
        "version": version,
        "key": None if key is None else key.hex(),
        "namespace": None if searched is None else searched.namespace,
        "line": None if searched is None else searched.line,
        "asked": None if searched is None else searched.asked,
        "candidates": [] if searched is None else [in_full(searched.asked, each) for each in searched.candidates],
    }


def _namespace(query: str) -> str | None:
    try:
        asked = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        asked = {"": [query]}
    if set(asked) - {"namespace"}:
        raise InvalidRequest(f"the query may be 'namespace=…', got {shown(query)}", "namespace")
    return asked["namespace"][0] if asked else None


def _json(value: Any) -> Reply:
    return Reply(200, {"Content-Type": JSON}, orjson.dumps(value))
