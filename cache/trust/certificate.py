"""What can be said of a namespace's hits, as one plain value for the operator. Decides nothing."""

from dataclasses import dataclass

from cache.trust.policy import audit_share, region_delta, regions
from cache.trust.sample import LEVELS
from cache.trust.state import SOURCES, Policy, State


@dataclass(frozen=True, slots=True)
class Region:
    """One group of confidences that has evidence of its own: from `threshold` up to the one before."""

    threshold: float
    audited: int
    wrong: int
    upper_bound: float


@dataclass(frozen=True, slots=True)
class Served:
    """The hits since `since`: how many, what audits found, an estimate of the wrong ones, and a bound on their share.

    The bound holds for these very hits, however the traffic changed meanwhile.
    """

    since: float
    hits: int
    audited: int
    wrong: int
    wrong_estimate: float
    upper_bound: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of one namespace at `date` (seconds since the epoch).

    `audited` and `wrong` are the labels behind the bound: with probability `confidence` no more than `upper_bound` of
    such hits are wrong, at every moment at once. It is certified where that is at most `target`.
    """

    namespace: str
    status: str
    reason: str
    target: float
    confidence: float
    threshold: float
    audited: int
    wrong: int
    upper_bound: float
    since: float
    labelled_at: float | None
    date: float
    regions: tuple[Region, ...]
    served: Served
    labels: dict[str, int]
    audit_share: float


def certificate(namespace: str, state: State, policy: Policy, now: float) -> Certificate:
    """State what the evidence says."""
    assert policy.target is not None, "without a target nothing is certified"
    sample, ledger = state.samples[0], state.ledgers[0]
    groups = tuple(
        Region(LEVELS[last], *sample.counts(first, last), sample.upper(first, last, region_delta(state, policy, last)))
        for first, last in regions(state)
    )
    audited, wrong = sample.counts(0, state.place)
    return Certificate(
        namespace=namespace,
        status=state.status,
        reason=state.reason,
        target=policy.target,
        confidence=1 - policy.delta,
        threshold=state.threshold,
        audited=audited,
        wrong=wrong,
        upper_bound=max(group.upper_bound for group in groups),
        since=sample.begun,
        labelled_at=state.labelled_at,
        date=now,
        regions=groups,
        served=Served(
            ledger.begun, ledger.hits, ledger.audited, ledger.wrong, ledger.found, ledger.upper(policy.delta)
        ),
        labels=dict(zip(SOURCES, state.labels, strict=True)),
        audit_share=0.0 if state.status == "exact-only" else audit_share(state, policy),
    )
