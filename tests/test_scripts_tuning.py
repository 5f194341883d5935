"""Tuning warm pools: traces are read right, costs are counted right, and only what is certain is proposed."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.warmth.course import Course, fixed
from backends.warmth.ladder import Ladder, Level, Rung, two_rungs
from config.load import load
from config.parsing import parse_keep_warm
from scripts.tune_warm_pool import main
from scripts.tuning.choosing import PREDICT, TooShortError, by_day, choose, costs_by_day, origin_day, written
from scripts.tuning.policies import HybridHistogram, Ours, by_break_even, kept_for, time_to_live
from scripts.tuning.proposal import Change, SharedError, edited, told_of_slight, worth_it
from scripts.tuning.replay import least, replay
from scripts.tuning.slots import POLICIES, furthest_in_future, greedy_dual, least_recently_used, ours
from scripts.tuning.synthetic import KINDS, make
from scripts.tuning.traces import Trace, TraceError, in_order, read_trace, trace_of
from scripts.tuning.weighing import Difference, compare

DAY_S = 86_400.0
SLEEPER = Ladder.of(
    [Rung(Level.WARM, 1.0, 0.0), Rung(Level.ASLEEP, 0.1, 2.9), Rung(Level.ABSENT, 0.0, 47.0)], wait=100.0
)


def on_sleeper(_model: str) -> Ladder:
    """Give every model the ladder of a server that sleeps."""
    return SLEEPER


def test_a_trace_tells_idle_times(tmp_path: Path):
    """From the latest end of what came before to the next arrival, in whatever order the lines are."""
    file = tmp_path / "trace.csv.gz"
    with gzip.open(file, "wt") as out:
        out.write("timestamp_s,model,service_s\n130,a,\n100,a,20\n105,a,2\n110,b,1\n200,a,1\n")
    trace = read_trace(file)
    assert list(in_order(trace)) == [("a", 10.0, 30.0), ("a", 69.0, 100.0)]
    assert (trace.start_s, trace.span_s) == (100.0, 100.0)
    assert trace.asked_s["a"].tolist() == [0.0, 5.0, 30.0, 100.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at,model\n1,a\n", "timestamp_s is missing"),
        ("timestamp_s,model\n1,a\nsoon,a\n", "line 3"),
        ("timestamp_s,model\n", "no requests"),
    ],
)
def test_what_is_no_trace_is_told(tmp_path: Path, text: str, words: str):
    """Which column is missing, or which line is wrong."""
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(TraceError, match=words):
        read_trace(file)


def test_a_fixed_time_costs_what_its_courses_do():
    """The sum over all idle times at once is the replay's, day by day."""
    trace = make("bursty", seed=3, days=4, models=3)
    costs = sum(by_day(idle, SLEEPER, fixed(SLEEPER, 600.0), 4) for idle in trace.idle.values())
    replayed = replay(trace, on_sleeper, time_to_live(on_sleeper, 600.0)).cost_by_day
    assert costs == pytest.approx(replayed)


def test_a_time_that_is_set_counts_for_the_warmest_level_alone():
    """Then comes sleep, for as long as break-even says; a time beyond that goes out at once."""
    asleep_s, out_s = SLEEPER.leave_after_s(0), SLEEPER.leave_after_s(1)
    assert kept_for(SLEEPER, 60.0) == Course((0.0, 60.0, out_s), (0, 1, 2))
    assert kept_for(SLEEPER, asleep_s + 1) == Course((0.0, asleep_s + 1, out_s), (0, 1, 2))
    assert kept_for(SLEEPER, out_s + 1) == Course((0.0, out_s + 1), (0, 2))
    late_s = out_s - 1
    assert kept_for(SLEEPER, late_s) == Course((0.0, late_s, late_s + 60.0), (0, 1, 2)), "who falls asleep stays so"
    assert kept_for(two_rungs(5.0), 60.0) == fixed(two_rungs(5.0), 60.0)


def test_waits_are_told_by_their_share_of_all_requests():
    """Of ten requests one found its model gone: nine waited nothing."""
    trace = trace_of({"a": np.array([0.0, 2, 4, 6, 8, 10, 12, 14, 16, 100_000])})
    accounts = replay(trace, on_sleeper, time_to_live(on_sleeper, 60.0))
    assert accounts.cold_share == 0.1
    assert (accounts.wait_s(0.89), accounts.wait_s(0.99)) == (0.0, 47.0)
    assert accounts.held_s[Level.WARM] == pytest.approx(8 * 1.0 + 60.0)


def test_what_is_before_the_origin_is_only_learned_from():
    """A timer that was learned before the origin is met from the first judged day on."""
    trace = trace_of({"a": np.arange(0.0, 12 * DAY_S, 3600.0)})
    judged = replay(trace, on_sleeper, Ours(on_sleeper), origin_s=6 * DAY_S)
    assert len(judged.cost_by_day) == 6
    assert judged.cost < 0.5 * replay(trace, on_sleeper, by_break_even(on_sleeper), origin_s=6 * DAY_S).cost


@pytest.mark.parametrize("kind", KINDS)
def test_ours_is_never_much_dearer_than_break_even(kind: str):
    """On every kind of trace, the adversary's too: at most a tenth."""
    trace = make(kind, seed=11, days=7, models=8)
    ours_cost = replay(trace, on_sleeper, Ours(on_sleeper)).cost
    assert ours_cost <= 1.1 * replay(trace, on_sleeper, by_break_even(on_sleeper)).cost


@pytest.mark.parametrize("kind", ["stationary", "diurnal", "bursty", "drifting"])
def test_no_policy_that_only_goes_down_beats_the_optimum(kind: str):
    """The bound is one for break-even and for every fixed time."""
    trace = make(kind, seed=5, days=3, models=4)
    bound = least(trace, on_sleeper)
    assert replay(trace, on_sleeper, by_break_even(on_sleeper)).cost >= bound
    assert replay(trace, on_sleeper, time_to_live(on_sleeper, 300.0)).cost >= bound


def test_the_hybrid_histogram_meets_a_timer():
    """Its window is around the hour, and there is none before."""
    policy = HybridHistogram(on_sleeper)
    for _ in range(50):
        policy.ended("a", 3600.0, 0.0)
    assert policy.course("a", 0.0).place_at(3600.0) == 0
    assert policy.course("a", 0.0).place_at(1000.0) == 2
    assert policy.course("unknown", 0.0).place_at(4 * 3600.0 - 1) == 0


requests = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60).map(
    lambda models: [(10.0 * place, model) for place, model in enumerate(models)]
)


@settings(max_examples=60)
@given(requests, st.integers(1, 6))
def test_nobody_misses_less_than_who_knows_the_future(asked, slots):
    """Belady's choice is a bound for all, and each model that is asked for is missed once at least."""
    best = furthest_in_future(asked, slots)
    assert best >= len({model for _, model in asked})
    assert all(missed(asked, slots) >= best for missed in POLICIES.values())


def test_more_models_in_turn_than_slots_are_met_by_ours_and_not_by_lru():
    """Six models asked in turn, five slots: whoever lets the longest unused go finds nobody, ours four in six."""
    asked = [(10.0 * place, "abcdef"[place % 6]) for place in range(600)]
    assert least_recently_used(asked, 5) == greedy_dual(asked, 5) == 600
    assert ours(asked, 5) < 0.4 * 600


def test_a_difference_between_days_that_differ_by_chance_is_not_certain():
    """The same costs in another order prove nothing; half of them on each day does."""
    rng = np.random.default_rng(0)
    cost = rng.uniform(1, 100, 12)
    assert not compare(rng.permutation(cost), cost).is_certain
    halved = compare(cost / 2, cost)
    assert halved.is_certain
    assert halved.share == pytest.approx(-0.5)


def test_a_trace_of_too_few_days_is_refused():
    """Three days are nothing to learn from and judge on."""
    with pytest.raises(TooShortError, match="3 days"):
        origin_day(trace_of({"a": np.array([0.0, 2.5 * DAY_S])}))


def _timer_and_chance() -> Trace:
    rng = np.random.default_rng(2)
    chance = np.cumsum(rng.exponential(1500.0, 600))
    return trace_of({"chance": chance, "timer": np.arange(0.0, float(chance[-1]), 3600.0)})


def test_a_change_is_proposed_where_it_pays_for_certain():
    """Five minutes are too short for a model that is asked each twenty-five, and what is best already stays."""
    trace = _timer_and_chance()
    daily = costs_by_day(trace, lambda _: two_rungs(20.0), (300.0, 14_400.0), lambda: None)
    origin = origin_day(trace)
    change = choose("chance", daily["chance"], "5m", origin)
    assert change is not None
    assert change.new == "4h"
    assert change.difference.high < 0
    assert choose("timer", daily["timer"], PREDICT, origin) is None


def test_what_saves_next_to_nothing_is_not_proposed():
    """A floor of the model's own cost, and one of the whole: the operator is not to edit for noise, and is told."""
    half, bit = (Difference(share, 2 * share, share / 2) for share in (-0.5, -0.01))
    changes = [
        Change("big", "5m", "1h", half, 4),
        Change("tiny", "5m", "1h", half, 4),
        Change("flat", "5m", "1h", bit, 4),
    ]
    enough, slight = worth_it(changes, {"big": 30.0, "tiny": 0.2, "flat": 43.6})
    assert [change.model for change in enough] == ["big"]
    assert "\n" not in told_of_slight(slight)
    assert "not proposed: tiny 1h (50.0 %), flat 1h (1.0 %)" in told_of_slight(slight)


@given(st.sampled_from([30.0, 90.0, 300.0, 3600.0, 5400.0, 86_400.0]))
def test_times_are_written_as_the_config_reads_them(seconds):
    """What is proposed is read back as what was meant."""
    assert parse_keep_warm(written(seconds)) == seconds


def test_the_tuner_edits_the_file_and_keeps_its_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Without --write it shows a difference; with it the file has the change, and all else is as it was."""
    config = tmp_path / "gateway.yaml"
    text = f"""\
# By hand.
models:
  chance: # asked now and then
    task: chat
    command: {{run: "serve --port {{port}}"}}
    pool: {{max: 2, keep_warm: 5m}} # why not
  upstream: {{task: chat, http: {{url: "https://api.example.com/v1"}}}}
cache: {{directory: {tmp_path}}}
"""
    config.write_text(text)
    trace = tmp_path / "trace.csv"
    asked_s = _timer_and_chance().asked_s["chance"].tolist()
    rows = "".join(f"{at},chance\n{at},upstream\n" for at in asked_s) + "5,chanse\n6,[b]\n"
    trace.write_text("timestamp_s,model\n" + rows)
    arguments = ["--config", str(config), "--trace", str(trace), "--start", "20", "--json", str(tmp_path / "out.json")]
    assert main(arguments) == 0
    shown, told = capsys.readouterr()
    assert f"upstream (requests: {len(asked_s)}), which is asked at its upstream and not started here" in told
    assert "chanse (requests: 1), which the config does not have; is chance meant?" in told
    assert "[b] (requests: 1), which the config does not have\n" in told
    (change,) = json.loads((tmp_path / "out.json").read_text())["changes"]
    assert change["model"] == "chance"
    assert f"+    pool: {{max: 2, keep_warm: {change['new']}}} # why not" in shown
    assert config.read_text() == text
    assert main([*arguments, "--write"]) == 0
    assert config.read_text() == text.replace("5m", change["new"])
    assert load(config, {}).models["chance"].pool.keep_warm_s == parse_keep_warm(change["new"])


SPACED = """\
server:
    keys:
      -   name: a # the first
models:
    b:
        task: chat   # why

        # of the next
    c:
        pool:   # none
            # before
            keep_warm: "5m" # five
            max: 3
    d:
        pool:
            max: 2 # m
            schedule:
              - {days: [mon]} # s
    e: {task: chat, pool: {}}
    f: {pool: {max: 1}}
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_only_what_is_changed_is_written_anew(tmp_path: Path, line_end: str):
    """However a file is indented and whatever its line ends, no line differs but those of the changes."""
    file = tmp_path / "f.yaml"
    file.write_bytes(SPACED.replace("\n", line_end).encode())
    changes = [Change(model, "5m", "7m", Difference(-0.5, -0.6, -0.4), 4) for model in "bcdef"]

    expected = (
        SPACED.replace("# why\n", "# why\n        pool: {keep_warm: 7m}\n")
        .replace('"5m"', "7m")
        .replace("# s\n", "# s\n            keep_warm: 7m\n")
        .replace("pool: {}", "pool: {keep_warm: 7m}")
        .replace("{max: 1}", "{max: 1, keep_warm: 7m}")
    )
    assert edited(file, changes) == expected.replace("\n", line_end)


def test_what_others_share_is_not_changed(tmp_path: Path):
    """An alias stands for what another model has too, which was not weighed for it: the operator is told."""
    file = tmp_path / "f.yaml"
    file.write_text("models: {a: {pool: &p {max: 1}}, b: {pool: *p}}")
    with pytest.raises(SharedError, match=r"models\.b is written with the anchor 'p': write keep_warm: 7m by hand"):
        edited(file, [Change("b", "5m", "7m", Difference(-0.5, -0.6, -0.4), 4)])


def test_a_trace_of_strangers_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """None of its models is started here: nothing to tune."""
    config = tmp_path / "gateway.yaml"
    config.write_text('models:\n  a: {task: chat, command: {run: "serve {port}"}}\n')
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp_s,model\n0,b\n900000,b\n")
    assert main(["--config", str(config), "--trace", str(trace)]) == 1
    assert "none of them" in capsys.readouterr().err.replace("\n", " ")
