"""What an operator is shown of pools: levels, prices, forecasts, accounts, and the last decisions. Knows no server."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from backends.contest import Contest
from backends.demand import FORECASTS
from backends.keeper import Decision
from backends.ledger import ColdStart, Ledger, Ledgers
from backends.onnx import OnnxEngine
from backends.onnx_sleep import SleepingOnnx
from backends.pool import Pool
from backends.warmth.ladder import Level

_HOUR_S = 3600.0
# Times of the gateway's own clock, which nobody else can read: each is told as how long ago it was, too.
_POOL_TIMES = ("last_arrival", "idle_since", "promised_since")
_REPLICA_TIMES = ("since", "idle_since")


def pools_view(
    pools: Mapping[str, Pool], decisions: Iterable[Decision], ledgers: Ledgers, contest: Contest, now: float
) -> dict[str, Any]:
    """Return all pools and decisions, the latest decision first."""
    return {
        "pools": {model: _of_pool(pool, ledgers.of(model), now) for model, pool in pools.items()},
        "forecast": _of_contest(contest),
        "decisions": [_of_decision(decision, now) for decision in reversed(tuple(decisions))],
    }


def _of_contest(contest: Contest) -> dict[str, Any]:
    """Return which forecast says who gives way, and what each would have made requests wait of late."""
    rivals = contest.rivals
    return {"followed": FORECASTS[rivals.best], "lost_s": dict(zip(FORECASTS, rivals.lost_s, strict=True))}


def _of_pool(pool: Pool, ledger: Ledger, now: float) -> dict[str, Any]:
    return {
        "unloaded": pool.resting,
        **_state(pool, now),
        "ladder": _ladder(pool),
        **_starts(pool),
        "forecast": _forecast(pool, now),
        "accounts": _accounts(ledger, now),
    }


def _state(pool: Pool, now: float) -> dict[str, Any]:
    """Return what the keeper sees, with the levels by their names."""
    state = dataclasses.asdict(pool.snapshot(now))
    for each in (*state["replicas"], *state["costs"]):
        each["level"] = _name(each["level"])
    state["replicas"] = [{**replica, **_ago(replica, _REPLICA_TIMES, now)} for replica in state["replicas"]]
    told = _ago(state, _POOL_TIMES, now) | {"retry_in_s": round(max(0.0, state["retry_at"] - now), 3)}
    return {**state, **told, "rungs": [_name(level) for level in state["rungs"]]}


def _ago(state: Mapping[str, Any], names: Iterable[str], now: float) -> dict[str, float | None]:
    """Return how long ago each of these times was; None where it was not."""
    times = {name: state[name] for name in names}
    return {f"{name}_ago_s": None if time is None else round(now - time, 3) for name, time in times.items()}


def _ladder(pool: Pool) -> dict[str, Any]:
    """Return the levels worth standing on, the warmest first, in seconds of one warm and idle replica."""
    ladder = pool.demand.keeping.ladder
    rungs = [{"level": _name(rung.level), "price": rung.hold, "reach_s": rung.reach_s} for rung in ladder.rungs]
    return {"wait_price": ladder.wait, "rungs": rungs}


def _starts(pool: Pool) -> dict[str, Any]:
    """Return for workers of ours what became of the optimised graph at their starts, and which shapes are run there."""
    if not isinstance(pool.engine, OnnxEngine):
        return {}
    graphs = {each.name: each.backend.graph for each in pool.fleet.replicas if isinstance(each.backend, SleepingOnnx)}
    return {"starts": {"graphs": graphs, "shapes": pool.engine.shapes.worth()}}


def _forecast(pool: Pool, now: float) -> dict[str, Any]:
    demand, keeping, start_s = pool.demand, pool.demand.keeping, pool.costs.start_s()
    told: dict[str, Any] = {"rate_per_s": demand.rate_per_s(now), "course": keeping.words()}
    if demand.idle_since is not None:
        idle_s = max(0.0, now - demand.idle_since)
        told |= {
            "idle_s": idle_s,
            "chance_within_start": keeping.chance_within(idle_s, start_s),
            "chance_within_hour": keeping.chance_within(idle_s, _HOUR_S),
        }
    return told


def _accounts(ledger: Ledger, now: float) -> dict[str, Any]:
    return {
        "idle_s": _by_level(ledger.idle_s),
        "idle_gib_s": _by_level({level: held / 2**30 for level, held in ledger.idle_byte_s.items()}),
        "spared_s": _by_level(ledger.spared_s),
        "cold_starts": {remedy.value: count for remedy, count in ledger.cold.items()},
        "last_cold_starts": [_of_cold_start(cold, now) for cold in reversed(ledger.last_cold)],
    }


def _of_cold_start(cold: ColdStart, now: float) -> dict[str, Any]:
    return {"ago_s": round(now - cold.at, 3), "from": _name(cold.level), "start_s": cold.start_s, "why": cold.words()}


def _of_decision(decision: Decision, now: float) -> dict[str, Any]:
    action = decision.action
    return {
        "ago_s": round(now - decision.at, 3),
        "action": type(action).__name__.lower(),
        **dataclasses.asdict(action),
    }


def _by_level(amounts: Mapping[Level, float]) -> dict[str, float]:
    return {_name(level): amount for level, amount in sorted(amounts.items())}


def _name(level: Level) -> str:
    return level.name.lower()
