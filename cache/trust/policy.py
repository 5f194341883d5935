"""Decides what may be served and learns from labels: pure functions from a state, and what happened, to the next.

Served is what some level and all above it allow. The start threshold is provisional: many of its hits are audited. It
is certified once the labels exclude, at every look and with probability 1 - δ, that more than the target's share of
such hits are wrong. What is below opens level by level, each by labels of its own from candidates that were not served,
so that a change of the mix between levels breaks nothing (fixed-sequence testing: Angelopoulos et al., "Learn then
Test", 2021). Two things close a namespace: audits found more wrong hits than its hits allow, or bets against the target
have won too much of late, by what audits found and feedback told (an e-detector: Shin, Ramdas and Rinaldo, 2023). It
opens again by fresh evidence alone.
"""

import math
from dataclasses import replace
from typing import Literal, NamedTuple

from cache.trust.bounds import is_below, lower_mean
from cache.trust.contract import Decision, Label
from cache.trust.sample import LEVELS, Ledger, Sample, level_of
from cache.trust.state import SOURCES, Policy, State

# Shares of the error: most for the start threshold, the rest for stricter ones where that one is closed.
_START_PART = 0.8
_FIRST_PART = 0.8
# So many labels, in multiples of 1 / target, give also stricter levels time to show that they are right.
_LONG = 12.0
# The wrong shares that the bets are made for, in multiples of the target, and at most one half.
_DRIFTS = (2.0, 5.0, 20.0)
_ALARM = 200.0
# Audits that may be under way, or may have failed one after the other, before what has no certificate is not served.
_MOST_PENDING = 32
_MOST_LOST = 16


def fresh(policy: Policy, now: float, pooled: Sample | None = None) -> State:
    """Return the state of a new namespace; `pooled` has the labels of all others, which can only close it."""
    state = _begin(policy, now)
    if pooled is not None and policy.target is not None:
        looked_at, wrong = pooled.counts(0, policy.start)
        if lower_mean(looked_at, wrong, policy.delta) > policy.target:
            return _close(state, policy, now, "wrong elsewhere: the other namespaces' labels are above the target")
    return state


class Watch(NamedTuple):
    """What watches over hits now: a `chance` in [0, 1), drawn anew for each, and what is left of audits, 0 to 1.

    `pending` is how many audits are under way.
    """

    chance: float
    budget: float = 1.0
    pending: int = 0


def decide(state: State, policy: Policy, confidence: float, watch: Watch) -> tuple[Decision, State]:
    """Decide on a candidate. The state that is returned has the hit counted, where it is one."""
    if policy.target is None:
        reached = confidence >= policy.start_threshold
        return Decision(reached, "fixed" if reached else "below-threshold", confidence, policy.start_threshold), state
    threshold = state.threshold
    explore = level_of(confidence) is not None and watch.budget > 0
    if state.status == "exact-only" or confidence < threshold:
        reason: Literal["exact-only", "below-threshold"]
        reason = "exact-only" if state.status == "exact-only" else "below-threshold"
        return Decision(False, reason, confidence, threshold, explore=explore), state
    share = _share_now(state, policy, watch)
    if share <= 0:
        return Decision(False, "unaudited", confidence, threshold, explore=explore), state
    older, younger = state.ledgers
    served = replace(state, ledgers=(older.serve(share), younger.serve(share)))
    return Decision(True, state.status, confidence, threshold, audit=watch.chance < share, share=share), served


def _share_now(state: State, policy: Policy, watch: Watch) -> float:
    """Return with which probability a hit is audited; 0 where it must not be served, since nothing watches over it."""
    if watch.budget <= 0:
        return 0.0
    if state.status == "certified":
        # Audits that the budget does not allow are spread over all hits, so that each still has its chance.
        return audit_share(state, policy) * min(1.0, 2 * watch.budget)
    if watch.pending >= _MOST_PENDING or state.lost >= _MOST_LOST:
        return 0.0
    return policy.start_share


def audit_share(state: State, policy: Policy) -> float:
    """Return which share of the hits is to be audited now.

    With a share q the chance that B wrong hits pass and no audit sees one is at most e^-qB: it is kept below δ for half
    of what the hits so far allow, the other half is for what passes until it is sure. Where a wrong one was found of
    late the share is as at the start.
    """
    assert policy.target is not None, "without a target nothing is audited"
    if state.status != "certified" or max(state.wealth) > 1.0:
        return policy.start_share
    ledger = state.ledgers[0]
    allowed = policy.target * ledger.hits - ledger.found
    if allowed <= 0:
        return policy.start_share
    return min(policy.start_share, max(policy.share, 2 * math.log(1 / policy.delta) / allowed))


def lose(state: State) -> State:
    """Note an audit that came to no label."""
    return replace(state, lost=state.lost + 1)


def learn(state: State, policy: Policy, label: Label) -> State:
    """Take a label into account. Feedback is no random sample: what it calls right is no evidence."""
    state = _count(state, label)
    level = level_of(label.confidence)
    if policy.target is None or level is None or (label.source == "feedback" and label.same):
        return state
    if label.served and label.source == "audit":
        older, younger = (ledger.audit(label.share, same=label.same) for ledger in state.ledgers)
        state = replace(state, ledgers=(older, younger))
    if state.status == "exact-only" and label.served:
        return state  # of a hit from before; only what came since is fresh
    old, young = (sample.add(level, same=label.same) for sample in state.samples)
    state = replace(state, samples=(old, young))
    if label.served:
        state = replace(
            state, wealth=_bet(state.wealth, policy.target, same=label.same), wrong_of_late=_blame(state, label)
        )
    return settle(_roll(state, policy, label.at), policy, label.at)


def settle(state: State, policy: Policy, now: float) -> State:
    """Return the state with the status that its evidence gives it under this policy."""
    if policy.target is None:
        return state
    if state.status == "exact-only":
        return _recovered(state, policy, now)
    if sum(state.wealth) / len(state.wealth) >= _ALARM:
        audited, told = state.wrong_of_late
        why = f"drift: too many wrong hits of late: {audited} found by audits, {told} told by feedback"
        return _close(state, policy, now, why)
    ledger = state.ledgers[0]
    # The first one found at the start is forgiven: one tells little, and without it nothing would ever begin.
    if ledger.found - 1 / policy.start_share > policy.target * ledger.hits:
        return _close(state, policy, now, "breach: audits found more wrong hits than the target allows")
    if not _passes(state.samples[0], policy, 0, state.base, region_delta(state, policy, state.base)):
        why = "too few labels yet for a certificate"
        return replace(state, status="starting", reason=why, place=state.base)
    return replace(state, status="certified", reason="the labels allow it", place=_opened(state, policy))


def regions(state: State) -> list[tuple[int, int]]:
    """Return the levels that are served, as first and last of each group that has evidence of its own."""
    return [(0, state.base), *((place, place) for place in range(state.base + 1, state.place + 1))]


def region_delta(state: State, policy: Policy, place: int) -> float:
    """Return the error that the bound on a region, which ends at this level, may have.

    All attempts to open a namespace share what is allowed: most is the first one's, the others have 1/2, 1/6, 1/12, …
    of the rest.
    """
    delta = policy.delta * _START_PART if place >= policy.start else policy.delta * (1 - _START_PART) / policy.start
    if state.attempt == 0:
        return delta * _FIRST_PART
    return delta * (1 - _FIRST_PART) / (state.attempt * (state.attempt + 1))


def _begin(policy: Policy, now: float) -> State:
    samples = (Sample(now), Sample(now))
    ledgers = (Ledger(now, policy.share), Ledger(now, policy.share))
    start = policy.start
    return State("starting", "too few labels yet for a certificate", now, start, start, start, samples, ledgers)


def _count(state: State, label: Label) -> State:
    place = SOURCES.index(label.source)
    counts = (*state.labels[:place], state.labels[place] + 1, *state.labels[place + 1 :])
    return replace(state, labels=counts, labelled_at=label.at, lost=0)


def _close(state: State, policy: Policy, now: float, reason: str) -> State:
    """Serve nothing any more, and forget what spoke for serving; the ledgers stay, to tell what was served."""
    return replace(
        _begin(policy, now), status="exact-only", reason=reason, ledgers=state.ledgers, labels=state.labels,
        labelled_at=state.labelled_at, attempt=state.attempt + 1,
    )  # fmt: skip


def _recovered(state: State, policy: Policy, now: float) -> State:
    """Open again down to the start threshold, or else the loosest stricter level, that fresh labels allow."""
    for place in (policy.start, *reversed(range(policy.start))):
        if _passes(state.samples[0], policy, 0, place, region_delta(state, policy, place)):
            opened = replace(state, base=place)
            fresh_ledgers = _begin(policy, now).ledgers
            return replace(
                opened, status="certified", reason="fresh labels allow it again", since=now,
                place=_opened(opened, policy), ledgers=fresh_ledgers,
            )  # fmt: skip
    looked_at, wrong = state.samples[0].counts(0, policy.start)
    assert policy.target is not None, "without a target nothing is closed"
    if looked_at * policy.target >= _LONG and lower_mean(looked_at, wrong, policy.delta) > policy.target:
        # What is refuted will hardly be certified by more: a new attempt, which has less of the error to spend.
        return replace(state, samples=(Sample(now), Sample(now)), attempt=state.attempt + 1)
    return state


def _opened(state: State, policy: Policy) -> int:
    """Return the loosest level to which every one from the base on has labels enough of its own."""
    place, sample = state.base, state.samples[0]
    while place + 1 < len(LEVELS):
        if not _passes(sample, policy, place + 1, place + 1, region_delta(state, policy, place + 1)):
            break
        place += 1
    return place


def adopt(state: State, policy: Policy, now: float) -> State:
    """Return the state under an edited policy: what was learned stays, and what it allows may change."""
    base = policy.start if state.base == state.start else min(state.base, policy.start)
    return settle(replace(state, start=policy.start, base=base, place=base), policy, now)


def _passes(sample: Sample, policy: Policy, first: int, last: int, delta: float) -> bool:
    assert policy.target is not None, "without a target nothing is tested"
    return is_below(*sample.counts(first, last), delta, policy.target)


def _bet(wealth: tuple[float, ...], target: float, *, same: bool) -> tuple[float, ...]:
    """Return what the bets have won; each starts anew with 1 where it has less."""
    outcome = 0.0 if same else 1.0
    return tuple(
        max(1.0, won) * (1 + _stake(target, drift) * (outcome - target))
        for won, drift in zip(wealth, _DRIFTS, strict=True)
    )


def _blame(state: State, label: Label) -> tuple[int, int]:
    """Return how many wrong hits audits and feedback have told of since the bets last had won nothing."""
    audited, told = state.wrong_of_late if max(state.wealth) > 1 else (0, 0)
    return audited + (label.source == "audit" and not label.same), told + (label.source == "feedback")


def _stake(target: float, drift: float) -> float:
    """Return the bet that grows fastest where the wrong share is `drift` times the target (Kelly's)."""
    share = min(max(0.5, target), drift * target)
    return (share - target) / (target * (1 - target))


def _roll(state: State, policy: Policy, now: float) -> State:
    """Let the younger take the older's place, where it is full enough."""
    if state.samples[1].is_full(now):
        state = replace(state, samples=(state.samples[1], Sample(now)))
    if state.ledgers[1].is_full(now):
        state = replace(state, ledgers=(state.ledgers[1], Ledger(now, policy.share)))
    return state
