"""Exact hits by the writing of their requests: what is known of each, and whether it still holds. Knows no wire."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from backends.pool import Pool
from cache.exact import ExactCache
from gateway.caching.identity import scoped
from gateway.callers.limits import Limiter
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.errors import RequestRefused
from gateway.front import Answered
from gateway.lane.groups import Group, Prepared, Seen
from gateway.lane.heads import KnownHeaders
from gateway.lane.replay import STATUS, replay_of
from gateway.lane.writing import written
from gateway.query import Outcome
from gateway.reply_ids import fresh_ids
from gateway.routes import Routes

_MOST_BYTES = 32 * 2**20
# No reply longer than this is prepared: to write it costs more than to find it.
_LONGEST_BYTES = 256 * 2**10
# What the interpreter spends beside the bytes.
_OVERHEAD_BYTES = 1024
# Of so many it is remembered what they were answered with, so that an operator can ask by their ids.
_REMEMBERED = 4096


class Hits:
    """The replies that are prepared, those asked for again outliving the others."""

    def __init__(
        self,
        routes: Routes,
        pools: Mapping[str, Pool],
        exact: ExactCache,
        *,
        limiter: Limiter,
        telemetry: Telemetry,
        statistics: ModelStatistics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = routes
        self._pools = pools
        self._peek = exact.peek
        self._limiter = limiter
        self._telemetry = telemetry
        self._access = telemetry.access
        self._statistics = statistics
        self._clock = clock
        self._ids = map(str.encode, fresh_ids())
        self._kept: OrderedDict[tuple[Group, bytes], Prepared | Seen] = OrderedDict()
        self._used_bytes = 0
        self._served: deque[tuple[bytes, bytes]] = deque(maxlen=_REMEMBERED)

    def key_of(self, request_id: str) -> bytes | None:
        """Return the key of what a request was answered with, where it was one of the last."""
        wanted = request_id.encode()
        return next((key for its_id, key in self._served if its_id == wanted), None)

    def learn(self, found: Answered) -> None:
        """Note a request that was just answered from memory, where its head is known and its bytes tell all of it."""
        call, outcome = found.call, found.outcome
        if type(call.headers) is not KnownHeaders or (group := call.headers.group) is None:
            return
        if group.caller is not found.caller or outcome.status.detail != "exact" or found.reply.status != STATUS:
            return
        entry = self._peek(scoped(outcome.features.fingerprint, outcome.features.scope, outcome.head.version))
        body = found.reply.body
        if entry is not None and type(body) is bytes and len(call.body) + len(body) <= _LONGEST_BYTES:
            # By its writing, since it may be asked for again in other bytes; by its own bytes once those come again.
            # Where an upstream's bytes are kept, who asks otherwise may be told otherwise.
            writing = None if _has_upstreams_bytes(outcome) else written(group.path, call.body)
            self._keep(group, writing or call.body, Seen(entry, found, self._clock()))

    def _prepared(self, group: Group, body: bytes, seen: Seen) -> Prepared | None:
        """Prepare the reply to a request that was asked for again; None where it cannot be."""
        found, outcome = seen.found, seen.found.outcome
        head, pool = outcome.head, self._pools[outcome.head.model]
        targets = self._routes.named(found.model).targets(outcome.features.fingerprint)
        replay = None
        if targets == (head.model,) and pool.engine.version == head.version:
            limits = outcome.permit.headers
            replay = replay_of(
                found.reply, found.reply_id, outcome.status, limits=limits, entry=seen.entry, now=seen.now
            )
        if replay is None:
            self._forget(group, body)
            return None
        tokens = outcome.features.tokens_in + (outcome.features.max_tokens_out or 0)
        answered = self._telemetry.tally(found.surface, head.model, STATUS, outcome.status.label())
        sums = self._statistics.sums(head.model)
        prepared = Prepared(seen.entry, replay, pool, tokens=tokens, answered=answered, sums=sums)
        self._keep(group, body, prepared)
        return prepared

    def reply(self, group: Group, body: bytes) -> bytes | None:
        """Return what answers this body now, and count it; None where the usual way must look."""
        arrived = time.perf_counter()
        kept = group.prepared.get(body)
        if kept is None:
            writing = written(group.path, body) if group.prepared else None
            if writing is None or (kept := group.prepared.get(writing)) is None:
                return None
            if not isinstance(kept, Seen) or kept.found.call.body != body:
                body = writing
        prepared = self._prepared(group, body, kept) if isinstance(kept, Seen) else kept
        if prepared is None:
            return None
        if self._peek(prepared.key) is not prepared.entry:
            self._forget(group, body)
            return None
        now = self._clock()
        if now >= prepared.fresh_until or prepared.pool.resting:
            return None
        try:
            limits = self._limiter.pass_by(group.caller, prepared.tokens)
        except RequestRefused:  # the usual way tells of it
            return None
        prepared.asked_again = True
        fresh_id = next(self._ids)
        reply = prepared.replay.written(now, limits, fresh_id)
        self._served.append((fresh_id, prepared.key))
        took_s = time.perf_counter() - arrived
        prepared.answered.add(took_s)
        prepared.sums.hit(took_s, now)
        if self._access.file is not None:
            self._access.note(prepared.pool.model, total_s=took_s, cache="exact", status=STATUS, away_s=took_s)
        return reply

    def _keep(self, group: Group, body: bytes, prepared: Prepared | Seen) -> None:
        self._forget(group, body)
        prepared.size = prepared.reply_bytes + len(body) + _OVERHEAD_BYTES
        group.prepared[body] = prepared
        self._kept[group, body] = prepared
        self._used_bytes += prepared.size
        while self._used_bytes > _MOST_BYTES:
            oldest, least = next(iter(self._kept.items()))
            if least.asked_again:  # since it was looked at last
                least.asked_again = False
                self._kept.move_to_end(oldest)
            else:
                self._forget(*oldest)

    def _forget(self, group: Group, body: bytes) -> None:
        if (gone := self._kept.pop((group, body), None)) is not None:
            del group.prepared[body]
            self._used_bytes -= gone.size


def _has_upstreams_bytes(outcome: Outcome) -> bool:
    """Tell whether what is remembered has the bytes of an upstream, which some requests are told and others not."""
    return outcome.answer is not None and bool(outcome.answer.head.verbatim)
