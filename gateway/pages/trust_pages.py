"""`/admin/cache/certificate`, `/admin/cache/feedback` and `/admin/explain/{id}`: what is known of hits. No server."""

import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

from cache.trust.certificate import certificate
from cache.trust.contract import Label
from cache.trust.journal import Refused
from cache.trust.live import LiveTrust
from gateway.errors import InvalidRequest, UnknownPath, UnknownRequest
from gateway.fields import cut, parse_object, refuse, shown, text
from gateway.front import Page
from gateway.pages.loopback import only_loopback
from gateway.surfaces.wire import JSON, Call, Reply
from gateway.trust.explaining import in_full
from gateway.trust.recent import Recent, ServedHit

CERTIFICATE_PATH = "/admin/cache/certificate"
FEEDBACK_PATH = "/admin/cache/feedback"
EXPLAIN_PATH = "/admin/explain/{request}"


class TrustPages:
    """The pages by method and path; without a semantic cache they say that there is none.

    `forget` removes an entry from all caches.
    """

    def __init__(
        self,
        learned: tuple[LiveTrust, Recent] | None,
        forget: Callable[[bytes], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._learned = learned
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
        wanted = _namespace(call.query)
        (trust, _), now = self._known(), self._clock()
        policy = trust.policy
        told: dict[str, Any] = {
            "target": policy.target,
            "confidence": 1 - policy.delta,
            "judged_by": trust.version,
            "refused_pairs": trust.refused,
            "date": now,
            "namespaces": [
                {
                    **dataclasses.asdict(certificate(namespace, state, policy, now)),
                    "audits_under_way": trust.pending(namespace),
                }
                for namespace, state in sorted(trust.states())
                if policy.target is not None and wanted in (None, namespace)
            ],
        }
        return _json(told)

    async def _feedback(self, call: Call) -> Reply:
        """Take `{request_id, wrong}`: a wrong pair is never served again, a wrong exact answer is removed."""
        only_loopback(call)
        trust, recent = self._known()
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
        return _json(await self._take(trust, hit, wrong=wrong))

    async def _take(self, trust: LiveTrust, hit: ServedHit, *, wrong: bool) -> dict[str, Any]:
        if hit.pair is None:
            if wrong:
                await self._forget(hit.key)
            return {"removed": "entry" if wrong else None, "kept": True}
        known, kept = trust.is_refused(hit.pair), True
        if wrong:
            kept = await trust.refuse(Refused(hit.pair, hit.confidence))
        if not known:
            now = self._clock()
            trust.learn(
                Label(hit.namespace, hit.pair, hit.confidence, served=True, same=not wrong, source="feedback", at=now)
            )
        return {"removed": "pair" if wrong else None, "kept": kept}

    async def _explain(self, call: Call) -> Reply:
        """Tell all that is known of how a recent request was decided on."""
        only_loopback(call)
        _, recent = self._known()
        request_id = call.names["request"]
        told = recent.decision(request_id)
        if told is None:
            raise UnknownRequest(f"no search by meaning is known of a request '{cut(request_id)}'")
        return _json(
            {
                "request_id": request_id,
                "at": told.at,
                "namespace": told.namespace,
                "outcome": told.outcome,
                "line": told.line,
                "asked": told.asked,
                "candidates": [in_full(told.asked, candidate) for candidate in told.candidates],
            }
        )

    def _known(self) -> tuple[LiveTrust, Recent]:
        if self._learned is None:
            raise UnknownPath("nothing is found by meaning: the config has no section 'cache.semantic'")
        return self._learned


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
