"""Trust as it runs: the states of all namespaces, the refused pairs, the budget of audits, and the journal behind them.

All of it belongs to the event loop's thread. The decisions themselves are `policy`'s.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cache.trust import policy as rules
from cache.trust.contract import Decision, Label, Pair
from cache.trust.journal import Journal, Kept, Refused
from cache.trust.sample import Sample
from cache.trust.state import Policy, State, dump, load

_log = logging.getLogger(__name__)

_MOST_REFUSED = 200_000
# Longer than any audit may take.
_AUDIT_ENDS_S = 300.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How many audits a minute may see, and what comparing a candidate that was not served costs of them."""

    per_minute: int = 60
    exploration: float = 0.0


@dataclass(slots=True)
class TrustCounters:
    """What was decided and learned since the start."""

    degraded: int = 0
    unreadable: int = 0
    decided: dict[str, int] = field(default_factory=dict)


class LiveTrust:
    """A `Trust` whose policy may be edited at any time. `version` says who tells the confidences that it decides on.

    Labels of another version count for nothing: its states are kept apart, for when it comes back.
    """

    def __init__(
        self,
        policy: Policy,
        version: str,
        journal: Journal | None = None,
        kept: Kept | None = None,
        *,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.counters = TrustCounters()
        self.policy = policy
        self.version = version
        self.journal = journal
        self._budget = budget or Budget()
        self._clock = clock
        self._chance = chance
        self._left = float(self._budget.per_minute)
        self._filled_at = clock()
        self._states: dict[tuple[str, str], State] = {}
        self._dirty: set[tuple[str, str]] = set()
        self._pending: dict[str, deque[float]] = {}
        self._refused: dict[Pair, None] = {}
        self._bars: dict[bytes, float] = {}
        self._load(kept or Kept())
        if journal is not None:
            journal.states = self._take_dirty

    def decide(self, namespace: str, pair: Pair, confidence: float) -> Decision:
        """Decide on a candidate; one that is served is counted, and takes its part of the audits' budget."""
        decision, state = self._decide(namespace, pair, confidence)
        decided = self.counters.decided
        decided[decision.reason] = decided.get(decision.reason, 0) + 1
        if decision.serve and self.policy.target is not None:
            self._left -= decision.share
            if decision.audit:
                self._pending.setdefault(namespace, deque()).append(self._clock())
            self._keep(namespace, state)
        elif decision.explore:
            self._left -= self._budget.exploration
        return decision

    def preview(self, namespace: str, pair: Pair, confidence: float) -> Decision:
        """Tell what would be decided, and count nothing."""
        return self._decide(namespace, pair, confidence)[0]

    def unanswered(self, namespace: str) -> None:
        """Note that a served answer that was to be audited could not be."""
        self._settle(namespace)
        self._keep(namespace, rules.lose(self._state(namespace)))

    def learn(self, label: Label) -> None:
        """Take a label into account; a wrong pair is refused from now on."""
        if label.source == "audit":
            self._settle(label.namespace)
        if not label.same:
            self._raise_bar(label.pair.stored, label.confidence)
            if label.served:
                self._refuse(Refused(label.pair, label.confidence))
                if self.journal is not None:
                    self.journal.refuse_behind(Refused(label.pair, label.confidence))
        if self.journal is not None:
            self.journal.note_label(label, self.version)
        former = self._state(label.namespace)
        state = rules.learn(former, self.policy, label)
        self._keep(label.namespace, state)
        self._tell(label.namespace, former, state)

    async def refuse(self, refused: Refused) -> bool:
        """Never serve this pair again, in either order; tell whether that outlives a restart from now on."""
        self._refuse(refused)
        return self.journal is None or await self.journal.refuse(refused)

    def adopt(self, policy: Policy, version: str, budget: Budget) -> None:
        """Go on under an edited policy; what was learned stays."""
        now = self._clock()
        self.policy, self.version, self._budget = policy, version, budget
        self._left = min(self._left, float(budget.per_minute))
        for (namespace, of), state in list(self._states.items()):
            if of == version:
                adopted = rules.adopt(state, policy, now)
                self._keep(namespace, adopted)
                self._tell(namespace, state, adopted)

    def states(self) -> Iterator[tuple[str, State]]:
        """Yield the namespaces with what is known of them."""
        for (namespace, version), state in self._states.items():
            if version == self.version:
                yield namespace, state

    def pending(self, namespace: str) -> int:
        """Return how many audits are under way."""
        begun = self._pending.get(namespace)
        while begun and begun[0] < self._clock() - _AUDIT_ENDS_S:
            begun.popleft()  # nobody told of its end
        return len(begun) if begun else 0

    def is_refused(self, pair: Pair) -> bool:
        """Tell whether a pair is never served."""
        return pair in self._refused

    @property
    def refused(self) -> int:
        """How many pairs are never served."""
        return len(self._refused) // 2

    async def close(self) -> None:
        """Write down what waits to be."""
        if self.journal is not None:
            await self.journal.close()

    def _decide(self, namespace: str, pair: Pair, confidence: float) -> tuple[Decision, State]:
        state = self._state(namespace)
        if pair in self._refused:
            return Decision(False, "refused-pair", confidence, state.threshold), state
        bar = self._bars.get(pair.stored)
        if bar is not None and confidence <= bar:
            # Its answer was wrong for another question that seemed as near.
            return Decision(False, "below-threshold", confidence, bar), state
        pending = self.pending(namespace)
        watch = rules.Watch(self._chance(), self._fill(), pending)
        return rules.decide(state, self.policy, confidence, watch)

    def _settle(self, namespace: str) -> None:
        """Note that an audit has ended."""
        if begun := self._pending.get(namespace):
            begun.popleft()

    def _fill(self) -> float:
        """Return which part of a minute's audits is left."""
        now = self._clock()
        most = float(self._budget.per_minute)
        self._left = min(most, self._left + max(0.0, now - self._filled_at) * most / 60.0)
        self._filled_at = now
        return self._left / most if most else 0.0

    def _state(self, namespace: str) -> State:
        state = self._states.get((namespace, self.version))
        if state is None:
            state = rules.fresh(self.policy, self._clock(), self._pooled())
            self._states[namespace, self.version] = state
            if state.status == "exact-only":
                _log.warning("%s is served exact answers only: %s", namespace, state.reason)
        return state

    def _pooled(self) -> Sample | None:
        """Return the labels of all namespaces together."""
        samples = [state.samples[0] for _, state in self.states()]
        if not samples:
            return None
        looked_at = tuple(map(sum, zip(*[sample.looked_at for sample in samples], strict=True)))
        wrong = tuple(map(sum, zip(*[sample.wrong for sample in samples], strict=True)))
        return Sample(self._clock(), looked_at, wrong)

    def _keep(self, namespace: str, state: State) -> None:
        self._states[namespace, self.version] = state
        self._dirty.add((namespace, self.version))
        if self.journal is not None:
            self.journal.note_states()

    def _tell(self, namespace: str, former: State, state: State) -> None:
        if former.status == state.status and former.place == state.place:
            return
        degraded = state.status == "exact-only"
        self.counters.degraded += degraded and former.status != "exact-only"
        level = logging.WARNING if degraded else logging.INFO
        _log.log(level, "%s: %s, threshold %g: %s", namespace, state.status, state.threshold, state.reason)
        if self.journal is not None:
            self.journal.flush()

    def _refuse(self, refused: Refused) -> None:
        pair = refused.pair
        while len(self._refused) >= 2 * _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[pair] = None
        self._refused[Pair(pair.stored, pair.asked)] = None
        self._raise_bar(pair.stored, refused.confidence)

    def _raise_bar(self, stored: bytes, confidence: float) -> None:
        """Serve an answer that was wrong for one question to others only if they are nearer."""
        bar = max(confidence, self._bars.pop(stored, 0.0))
        while len(self._bars) >= _MOST_REFUSED:
            del self._bars[next(iter(self._bars))]
        self._bars[stored] = bar

    def _take_dirty(self) -> list[tuple[str, str, str]]:
        taken = [(*key, dump(self._states[key])) for key in self._dirty]
        self._dirty.clear()
        return taken

    def _load(self, kept: Kept) -> None:
        for refused in kept.refused:
            self._refuse(refused)
        for key, text in kept.states.items():
            try:
                self._states[key] = load(text)
            except ValueError as error:
                self.counters.unreadable += 1
                _log.warning("what was learned of %s cannot be read, and is learned anew: %s", key[0], error)
        now = self._clock()
        for namespace, state in list(self.states()):
            self._states[namespace, self.version] = rules.adopt(state, self.policy, now)
