"""Readings of pools and caches for Prometheus, taken when it asks. Pure; knows no registry."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from backends.contest import Contest
from backends.demand import FORECASTS
from backends.graphs import Graphs
from backends.ledger import Ledgers
from backends.pool import Pool
from backends.snapshot import PoolSnapshot, ReplicaState
from backends.standby import Standby
from cache.exact import ExactCache
from cache.flight import SingleFlight
from cache.semantic.lookup import SemanticCache
from cache.trust.certificate import certificate
from cache.trust.live import LiveTrust
from gateway.counting.access_log import AccessLog
from gateway.counting.telemetry import Reading
from gateway.running import Item
from gateway.trust.audit import AuditCounters


def of_pools(pools: Mapping[str, Pool], now: float) -> Iterable[Reading]:
    """Read what every pool looks like now."""
    for pool in pools.values():
        yield from _of_pool(pool.snapshot(now))


def _of_pool(pool: PoolSnapshot) -> Iterable[Reading]:
    for state in ReplicaState:
        count = sum(replica.state is state for replica in pool.replicas)
        labels = (pool.model, state.value)
        yield Reading("warmgate_pool_replicas", "Replicas by state.", ("model", "state"), labels, count)
    figures = {
        "warmgate_pool_queued": ("Jobs that wait for a replica.", pool.queued),
        "warmgate_pool_in_flight": ("Jobs that replicas hold.", pool.in_flight),
        "warmgate_pool_demand_per_second": ("Time-decayed rate of jobs.", pool.rate_per_s),
        "warmgate_pool_start_seconds": ("Learned median of the start-up time.", pool.start_s),
        "warmgate_pool_service_seconds": ("Learned mean of the service time.", pool.service_s),
        "warmgate_pool_replica_bytes": ("Learned host memory of one replica.", pool.replica_bytes),
    }
    for metric, (what, value) in figures.items():
        yield Reading(metric, what, ("model",), (pool.model,), value)
    for cost in pool.costs:
        labels, by_level = (pool.model, cost.level.name.lower()), ("model", "level")
        what = "Learned median of the time from a level of warmth to ready."
        yield Reading("warmgate_pool_reach_seconds", what, by_level, labels, cost.reach_s)
        what = "Learned memory of one replica on a level of warmth, of the host and of devices."
        yield Reading("warmgate_pool_level_bytes", what, by_level, labels, cost.memory_bytes + cost.device_bytes)


def of_ledgers(ledgers: Ledgers, models: Iterable[str]) -> Iterable[Reading]:
    """Read what keeping replicas idle has cost and spared."""
    by_level = ("model", "level")
    for model in models:
        ledger = ledgers.of(model)
        for level, seconds in ledger.idle_s.items():
            labels, what = (model, level.name.lower()), "Seconds that replicas were idle."
            yield Reading("warmgate_pool_idle_seconds", what, by_level, labels, seconds, counter=True)
            held, what = ledger.idle_byte_s[level], "Bytes that idle replicas held, times seconds."
            yield Reading("warmgate_pool_idle_byte_seconds", what, by_level, labels, held, counter=True)
        for level, seconds in ledger.spared_s.items():
            labels, what = (model, level.name.lower()), "Seconds of starts that requests were spared by idle replicas."
            yield Reading("warmgate_pool_spared_seconds", what, by_level, labels, seconds, counter=True)
        for remedy, count in ledger.cold.items():
            labels, what = (model, remedy.value), "Requests that met no warm replica, by what would have kept it warm."
            yield Reading("warmgate_pool_cold_starts", what, ("model", "remedy"), labels, count, counter=True)


def of_contest(contest: Contest) -> Iterable[Reading]:
    """Read how the forecasts do that may say who gives way."""
    for name, seconds in zip(FORECASTS, contest.rivals.lost_s, strict=True):
        what = "Waiting that the choices of a forecast would have caused of late, on paper."
        yield Reading("warmgate_pool_forecast_lost_seconds", what, ("forecast",), (name,), seconds)


def of_graphs(graphs: Graphs) -> Iterable[Reading]:
    """Read what became of the optimised graphs on disk, at starts and when they were made."""
    for outcome, count in graphs.outcomes.items():
        what = "Optimised graphs, by what became of them at a start or when one was made."
        yield Reading("warmgate_graphs", what, ("outcome",), (outcome.replace(" ", "_"),), count, counter=True)
    yield Reading("warmgate_graph_bytes", "Bytes of the optimised graphs on disk.", (), (), graphs.held_bytes)


def of_standby(standby: Standby) -> Iterable[Reading]:
    """Read what became of the workers that stand by on devices."""
    for outcome, count in standby.outcomes.items():
        what = "Workers that stood by on a device, by why they do no more."
        yield Reading("warmgate_standby_workers", what, ("outcome",), (outcome,), count, counter=True)
    yield Reading("warmgate_standby_bytes", "Host memory of who stands by.", (), (), standby.held_bytes())


def of_access_log(log: AccessLog) -> Iterable[Reading]:
    """Read what became of the lines."""
    for result, count in (("written", log.written), ("dropped", log.dropped)):
        what = "Lines of the access log."
        yield Reading("warmgate_access_log_lines", what, ("result",), (result,), count, counter=True)


def of_flights(flights: SingleFlight[Item]) -> Iterable[Reading]:
    """Read how many are in shared work."""
    yield Reading("warmgate_flight_seats", "Requests in work that others may join.", (), (), flights.seats)


def of_trust(trust: LiveTrust, audits: AuditCounters, clock: Callable[[], float]) -> Iterable[Reading]:
    """Read what is served by meaning, and what is known of it."""
    for decision, count in trust.counters.decided.items():
        what = "Candidates by what was decided on them."
        yield Reading("warmgate_cache_decisions", what, ("decision",), (decision,), count, counter=True)
    for result, count in dataclasses.asdict(audits).items():
        what = "Audits of served answers, and near ones compared, by their result."
        yield Reading("warmgate_cache_audits", what, ("result",), (result,), count, counter=True)
    events = {"degraded": trust.counters.degraded, "unreadable": trust.counters.unreadable}
    if trust.journal is not None:
        events |= dataclasses.asdict(trust.journal.counters)
    for event, count in events.items():
        what = "What happened in a tier of the cache."
        yield Reading("warmgate_cache_events", what, ("tier", "event"), ("trust", event), count, counter=True)
    yield Reading("warmgate_cache_refused_pairs", "Pairs of questions that are never served.", (), (), trust.refused)
    if trust.policy.target is None:
        return
    for namespace, state in trust.states():
        said = certificate(namespace, state, trust.policy, clock())
        figures = {
            "warmgate_cache_wrong_bound": ("Upper bound on the share of wrong hits.", said.upper_bound),
            "warmgate_cache_certified": ("1 where the bound is within the target.", said.status == "certified"),
            "warmgate_cache_degraded": ("1 where only exact answers are served.", said.status == "exact-only"),
            "warmgate_cache_threshold": ("Least confidence that is served by meaning.", said.threshold),
        }
        for metric, (what, value) in figures.items():
            yield Reading(metric, what, ("namespace",), (namespace,), value)


def of_cache(exact: ExactCache, semantic: SemanticCache | None) -> Iterable[Reading]:
    """Read what the tiers hold and what happened to them."""
    yield Reading("warmgate_cache_entries", "Answers in memory.", (), (), len(exact.memory))
    yield Reading("warmgate_cache_bytes", "Bytes of the answers in memory.", (), (), exact.memory.used_bytes)
    budget = "What a tier of the cache may take."
    yield Reading("warmgate_cache_budget_bytes", budget, ("tier",), ("memory",), exact.memory.max_bytes)
    if exact.disk is not None:
        yield Reading("warmgate_cache_budget_bytes", budget, ("tier",), ("disk",), exact.disk.max_bytes)
    asked = "Purges that were asked of this gateway."
    yield Reading("warmgate_cache_purges", asked, (), (), exact.purges.count, counter=True)
    marks = "Purges in force, each of which is one mark."
    yield Reading("warmgate_cache_purge_marks", marks, (), (), exact.purges.in_force)
    tiers: dict[str, object] = {"memory": exact.memory.counters, "exact": exact.counters}
    if exact.disk is not None:
        tiers["disk"] = exact.disk.counters
    if semantic is not None:
        tiers["semantic"] = semantic.counters
        yield Reading("warmgate_semantic_vectors", "Questions that can be found by meaning.", (), (), semantic.entries)
        yield Reading("warmgate_semantic_bytes", "Bytes of their vectors in memory.", (), (), semantic.used_bytes)
    counted = {tier: dataclasses.asdict(counters) for tier, counters in tiers.items()}  # type: ignore[call-overload]
    if exact.shared is not None:
        counted["shared"] = dict(exact.shared.stats())
        yield Reading(
            "warmgate_cache_shared_up", "1 where the shared tier answers.", (), (), counted["shared"].pop("up")
        )
    for tier, events in counted.items():
        for event, count in events.items():
            what = "What happened in a tier of the cache."
            yield Reading("warmgate_cache_events", what, ("tier", "event"), (tier, event), count, counter=True)
