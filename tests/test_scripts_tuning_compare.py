"""Comparing policies: places, the access log, and what is shown and drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from backends.warmth.ladder import Ladder, Level, Rung, two_rungs
from scripts.tune_warm_pool import main
from scripts.tuning.comparing import compared
from scripts.tuning.places import Belady, Choice, GreedyDual, Recency, replay_places
from scripts.tuning.policies import by_break_even, time_to_live
from scripts.tuning.replay import DAY_S, foreseen, least, replay
from scripts.tuning.showing import table_of
from scripts.tuning.synthetic import make
from scripts.tuning.traces import Trace, TraceError, read_log, trace_of

SLEEPER = Ladder.of(
    [Rung(Level.WARM, 1.0, 0.0), Rung(Level.ASLEEP, 0.1, 2.9), Rung(Level.ABSENT, 0.0, 47.0)], wait=100.0
)
START_S = 20.0


def up_or_not(_model: str) -> Ladder:
    """Give every model the ladder of one that does not sleep."""
    return two_rungs(START_S)


def in_turn(models: str, rounds: int) -> Trace:
    """Ask for models in turn, one every hundred seconds."""
    step_s = 100.0 * len(models)
    return trace_of({m: np.arange(rounds) * step_s + 100.0 * place for place, m in enumerate(models)})


def test_with_room_for_all_nobody_waits_and_all_is_held() -> None:
    """Each idle time is held whole."""
    trace = in_turn("abc", 10)
    accounts = replay_places(trace, up_or_not, Recency(), 3)
    assert accounts.cold == len(accounts.waits_s) == 0
    assert accounts.cost == pytest.approx(sum(idle.lengths_s.sum() for idle in trace.idle.values()))


def test_one_place_for_models_in_turn_makes_all_wait() -> None:
    """Each is held until the next one comes, and is cold when it is asked again."""
    accounts = replay_places(in_turn("ab", 10), up_or_not, Recency(), 1)
    assert accounts.cold == 18
    assert accounts.held_s[Level.WARM] == pytest.approx(18 * 99.0)
    assert accounts.wait_s(0.5) == START_S


def test_whoever_is_busy_keeps_its_place() -> None:
    """With one place two that overlap are both there, rather than that a request in flight loses its model."""
    trace = trace_of(
        {"a": np.array([0.0, 5000.0]), "b": np.array([10.0, 6000.0])},
        {"a": np.array([1000.0, 1.0]), "b": np.array([1.0, 1.0])},
    )
    accounts = replay_places(trace, up_or_not, Recency(), 1)
    assert accounts.requests == 4
    assert accounts.cold == 1, "b takes a's place when a has ended, not before"


turns = st.lists(st.sampled_from("abcdef"), min_size=6, max_size=80)


@settings(max_examples=60)
@given(turns, st.integers(1, 6))
def test_foresight_is_cold_least_often(asked: list[str], places: int) -> None:
    """Where models are all alike, no choice of who gives way has fewer cold starts than Belady's."""
    at: dict[str, list[float]] = {}
    for place, model in enumerate(asked):
        at.setdefault(model, []).append(10.0 * place)
    trace = trace_of({model: np.array(times) for model, times in at.items()})
    choices: tuple[Choice, ...] = (Belady(), Recency(), GreedyDual())
    best, *others = (replay_places(trace, up_or_not, choice, places).cold for choice in choices)
    assert best <= min(others)


def test_foresight_of_each_idle_time_is_the_bound() -> None:
    """Its accounts add up to the bound, by levels that each idle time is cheapest on."""
    trace = make("bursty", seed=4, days=3, models=4)
    found = foreseen(trace, lambda _: SLEEPER)
    assert found.cost == pytest.approx(least(trace, lambda _: SLEEPER))
    assert found.cost <= replay(trace, lambda _: SLEEPER, by_break_even(lambda _: SLEEPER)).cost


def test_what_is_held_is_weighed_by_its_size() -> None:
    """Bytes times seconds by level, for each level's own size."""
    trace = trace_of({"a": np.array([0.0, 1001.0])})
    sizes = {Level.WARM: 4, Level.ASLEEP: 2, Level.ABSENT: 0}
    policy = time_to_live(lambda _: SLEEPER, 600.0)
    accounts = replay(trace, lambda _: SLEEPER, policy, sizes=lambda _, level: sizes[level])
    assert accounts.held_byte_s is not None
    assert accounts.held_byte_s[Level.WARM] == 4 * 600.0


def test_what_is_set_now_is_what_others_are_compared_with() -> None:
    """The same setting twice differs by nothing; a worse one is dearer for certain."""
    trace = make("stationary", seed=2, days=6, models=3)
    keep_s = dict.fromkeys(trace.idle, None)
    found = {
        each.name.split(" (")[0].split(",")[0]: each
        for each in compared(
            trace, up_or_not, keep_s, origin_s=2 * DAY_S, sizes=lambda _, level: int(level), progress=lambda: None
        )
    }
    assert found["as set now"].difference.share == found["predict"].difference.share == 0.0
    assert found["least for each idle time"].difference.high < 0
    assert len(found) == 9
    assert all(each.accounts.requests == found["predict"].accounts.requests for each in found.values())


def line(at: float, cache: str = "miss", status: int = 200, model: str = "m") -> str:
    """Write a line of the access log."""
    entry = {"timestamp_s": at, "model": model, "service_s": 2.0, "cache": cache, "status": status, "wait_s": 0.0}
    return json.dumps(entry) + "\n"


def test_the_log_tells_of_what_models_had_to_answer(tmp_path: Path) -> None:
    """Hits, followers and refusals are no demand; a client that left, and a model that failed, were."""
    file = tmp_path / "access.jsonl"
    file.write_text(
        line(0)
        + line(10, cache="exact")
        + line(20, cache="collapsed")
        + line(30, status=429, cache="none")
        + line(40, status=404, cache="none", model="")
        + line(100, status=499)
        + line(200, status=503, cache="none")
        + line(300, cache="bypass")
        + '{"timestamp_s": 400, "mod'
    )
    trace = read_log(file)
    assert trace.asked_s["m"].tolist() == [0.0, 100.0, 200.0, 300.0]
    assert trace.idle["m"].lengths_s.tolist() == [98.0, 98.0, 98.0]


@pytest.mark.parametrize(("text", "told"), [('{"model": 1}\n', "line 1"), (line(1, cache="exact"), "no requests")])
def test_what_is_no_log_is_told(tmp_path: Path, text: str, told: str) -> None:
    """Which line is wrong, or that there is nothing to learn from."""
    file = tmp_path / "access.jsonl"
    file.write_text(text)
    with pytest.raises(TraceError, match=told):
        read_log(file)


def test_the_tuner_reads_our_own_log_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From an access log: all policies in the table and in the report, and a picture."""
    config, log = tmp_path / "g.yaml", tmp_path / "access.jsonl"
    config.write_text('models:\n  m: {task: chat, command: {run: "serve {port}"}, pool: {keep_warm: 5m}}\n')
    rng = np.random.default_rng(1)
    log.write_text("".join(line(at) for at in np.cumsum(rng.exponential(1200.0, 500)).tolist()))
    arguments = ["--config", str(config), "--log", str(log), "--start", "20"]
    assert main([*arguments, "--json", str(tmp_path / "o.json"), "--png", str(tmp_path / "o.png")]) == 0

    report = json.loads((tmp_path / "o.json").read_text())
    by_name = {policy["policy"].split(",")[0]: policy for policy in report["policies"]}
    assert {"as set now", "predict", "break-even", "hybrid histogram", "LRU", "greedy-dual", "Belady"} <= set(by_name)
    assert by_name["predict"]["cost_s"] < by_name["as set now"]["cost_s"]
    assert by_name["predict"]["added_wait_s"]["p99"] <= 20.0
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "Belady" in shown
    assert "…" not in shown
    for policy in report["policies"]:
        (row,) = (
            line for line in shown.splitlines() if line.strip().startswith(f"{policy['policy']} ") and " %" in line
        )
        assert f" {', '.join(f'{wait_s:.3g}' for wait_s in policy['added_wait_s'].values())} " in row
    assert "LRU, 1 place " in shown


def test_a_table_has_its_figures_whole_in_a_terminal_of_80_columns() -> None:
    """Words break between words, figures not at all."""
    table = table_of("t", ("policy", "cold\nstarts", "wait", "idle", "cost", "against"), ("wait", "cost", "against"))
    table.add_row("best fixed time in hindsight (1800 s)", "12345", "0, 10.4, 120", "warm 104, asleep 30", "238.17",
                  "+122 % (+100 to +158)")  # fmt: skip
    with (console := Console(width=80)).capture() as captured:
        console.print(table)
    shown = captured.get()
    assert all(figure in shown for figure in ("12345", "0, 10.4, 120", "238.17", "+122 % (+100 to +158)", "hindsight"))
    assert max(map(len, shown.splitlines())) <= 80
