"""How warm an idle model is kept: ladders, courses, and when what was learned is trusted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.warmth.course import ALWAYS_COLD, Course, break_even, cheapest, fixed
from backends.warmth.giving_way import CLEARLY, Resident, first_to_go
from backends.warmth.idle_times import EDGES_S, IdleTimes, bin_of
from backends.warmth.keeping import HALF_LIFE_S, Habits, Keeping
from backends.warmth.ladder import Ladder, Level, Rung, two_rungs

DAY_S = 86_400.0
# A server that sleeps: 47 s from nothing and 2.9 s from sleep, at a tenth of the price.
SLEEPER = Ladder.of(
    [Rung(Level.WARM, 1.0, 0.0), Rung(Level.ASLEEP, 0.1, 2.9), Rung(Level.ABSENT, 0.0, 47.0)], wait=100.0
)


def test_break_even_is_when_staying_has_cost_what_coming_back_would():
    """Down to sleep after V * wake / (1 - r), and out after V * (cold - wake) / r."""
    course = break_even(SLEEPER)
    assert course.times_s == pytest.approx((0.0, 100 * 2.9 / 0.9, 100 * 44.1 / 0.1))
    assert course.places == (0, 1, 2)


def test_a_rung_that_is_never_the_cheapest_is_left_out():
    """Asleep for half the price and nearly as slow as from nothing: nobody would stand on it."""
    rungs = [Rung(Level.WARM, 1.0, 0.0), Rung(Level.ASLEEP, 0.5, 46.0), Rung(Level.ABSENT, 0.0, 47.0)]
    assert [rung.level for rung in Ladder.of(rungs, 100.0).rungs] == [Level.WARM, Level.ABSENT]


def test_a_rung_that_is_dearer_and_slower_is_left_out():
    """A replica loaded but not warmed that holds as much as a warm one is no place to rest."""
    rungs = [Rung(Level.LOADED, 1.0, 1.0), Rung(Level.WARM, 1.0, 0.0), Rung(Level.ABSENT, 0.0, 5.0)]
    assert [rung.level for rung in Ladder.of(rungs, 1.0).rungs] == [Level.WARM, Level.ABSENT]


def test_a_ladder_has_a_rung():
    """None at all is an error."""
    with pytest.raises(ValueError, match="at least one rung"):
        Ladder.of([], 1.0)


rungs = st.lists(st.builds(Rung, st.sampled_from(Level), st.floats(0, 10), st.floats(0, 100)), min_size=1, max_size=5)


def foreseen(ladder: Ladder, idle_s: float) -> float:
    """Return what an idle time costs whoever knows its length."""
    rung = ladder.rungs[ladder.cheapest(idle_s)]
    return rung.hold * idle_s + ladder.wait * rung.reach_s


@given(rungs, st.floats(0.1, 1000), st.floats(0, 1e6))
def test_what_is_left_out_costs_nothing(all_rungs, wait, idle_s):
    """Whoever knows an idle time's length does as well on the rungs that were kept as on all."""
    best = min(rung.hold * idle_s + wait * rung.reach_s for rung in all_rungs)
    assert foreseen(Ladder.of(all_rungs, wait), idle_s) <= best * (1 + 1e-9) + 1e-6


@given(rungs, st.floats(0.1, 1000), st.floats(0, 1e6))
def test_break_even_costs_at_most_twice_what_foresight_does(all_rungs, wait, idle_s):
    """The bound of ski rental, beyond what even the warmest rung makes wait."""
    ladder = Ladder.of(all_rungs, wait)
    unavoidable = wait * ladder.rungs[0].reach_s + ladder.rungs[-1].hold * idle_s
    assert break_even(ladder).cost(ladder, idle_s) <= 2 * foreseen(ladder, idle_s) + unavoidable + 1e-6


def test_a_course_costs_what_is_held_and_what_is_waited():
    """Ten warm seconds, then ninety asleep, then a wake."""
    course = Course((0.0, 10.0), (0, 1))
    assert course.cost(SLEEPER, 100.0) == pytest.approx(10 * 1.0 + 90 * 0.1 + 100 * 2.9)
    assert fixed(SLEEPER, 10.0).cost(SLEEPER, 5.0) == 5.0


def test_who_comes_during_a_climb_waits_for_its_rest():
    """A start that was begun 40 s ago of 47 leaves 7 to wait, and a minute later nothing."""
    course = Course((0.0, 10.0, 1000.0), (0, 2, 0))
    assert course.wait_s(SLEEPER, 1040.0) == pytest.approx(7.0)
    assert course.wait_s(SLEEPER, 1060.0) == 0.0


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=40), st.floats(0, 1e7))
def test_a_course_says_when_it_changes(times, idle_s):
    """Until the next change the rung is the same, and at it another one."""
    course = break_even(SLEEPER)
    change_s = course.next_change_s(idle_s)
    assert change_s is None or course.place_at(change_s) == course.place_at(idle_s) + 1
    assert all(course.place_at(min(t, idle_s)) <= course.place_at(idle_s) for t in times)


def test_a_timer_is_let_go_at_once_and_met_in_time():
    """Where every idle time is an hour, a replica is up or asleep around the hour, and gone before and after."""
    times = IdleTimes(HALF_LIFE_S)
    for hour in range(200):
        times.add(3600.0, hour * 3600.0)
    course = cheapest(SLEEPER, times.shares())
    gone = len(SLEEPER.rungs) - 1
    assert course.place_at(600.0) == gone
    assert course.place_at(EDGES_S[bin_of(3600.0)]) < gone
    assert course.place_at(30 * DAY_S) == gone, "what never came is not waited for"


@given(st.lists(st.floats(0, 30 * DAY_S), min_size=3, max_size=60), st.sampled_from([SLEEPER, two_rungs(10.0)]))
def test_the_cheapest_course_is_no_dearer_than_break_even_on_what_it_was_made_from(idle_times, ladder):
    """By the expected cost that it minimises: idle times spread over their bins, and one without an end."""
    times = IdleTimes(HALF_LIFE_S)
    for idle_s in idle_times:
        times.add(idle_s, 0.0)
    shares = times.shares()
    learned, safe = cheapest(ladder, shares), break_even(ladder)

    def expected(course: Course) -> float:
        total = 0.0
        for place, share in enumerate(shares[:-1]):
            middle = (EDGES_S[place] + EDGES_S[place + 1]) / 2
            total += share * course.cost(ladder, middle)
        return total + (1 - sum(shares[:-1])) * course.cost(ladder, EDGES_S[-1])

    # Bins are coarser than break-even's times, and a climb is charged a little differently than it is paid.
    assert expected(learned) <= expected(safe) * 1.25 + 1e-6


def test_old_idle_times_weigh_less():
    """Half after the half-life, so that a new habit soon counts for more than the old one."""
    times = IdleTimes(DAY_S)
    times.add(10.0, 0.0)
    times.add(1000.0, DAY_S)
    assert times.count == pytest.approx(1.5)
    shares = times.shares()
    assert shares[bin_of(1000.0)] == pytest.approx(2 * shares[bin_of(10.0)])


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e9)), max_size=50))
def test_a_histogram_outlives_a_restart(idle_times):
    """What was counted comes back as it was, whatever the clock did meanwhile."""
    times = IdleTimes(HALF_LIFE_S)
    for idle_s, now in idle_times:
        times.add(idle_s, now)
    again = IdleTimes.restored(times.state(), HALF_LIFE_S)
    assert again.shares() == pytest.approx(times.shares(), abs=1e-9)


@pytest.mark.parametrize("state", [{"88": 1.0}, {"-1": 1.0}, {"3": -1.0}, {"3": float("nan")}, {"x": 1.0}])
def test_a_foreign_state_is_refused(state):
    """Bins that there are not, and counts that cannot be."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message names the bin, or is the number's own
        IdleTimes.restored(state, HALF_LIFE_S)


def test_nothing_learned_is_break_even():
    """A model that was never idle takes the safe course."""
    keeping = Keeping(Habits(), SLEEPER)
    assert keeping.course == break_even(SLEEPER)
    assert keeping.words() == "break-even"


def test_the_learned_course_is_taken_once_it_has_saved_something():
    """A timer is learned; its course pays and is taken, and says so."""
    keeping = Keeping(Habits(), SLEEPER)
    for hour in range(60):
        keeping.ended(3500.0, hour * 3600.0)
    assert keeping.is_learned
    assert keeping.words().startswith("learned from ")
    assert keeping.course.cost(SLEEPER, 3500.0) < 0.5 * keeping.safe.cost(SLEEPER, 3500.0)


@settings(max_examples=30)
@given(st.lists(st.floats(1.0, 1e6), min_size=50, max_size=200))
def test_what_was_learned_costs_little_more_than_break_even_at_worst(idle_times):
    """Whatever the idle times, all of them together: at most some starts dearer, which is what trust may lose."""
    keeping = Keeping(Habits(), SLEEPER)
    now = taken = safe = 0.0
    for idle_s in idle_times:
        now += idle_s
        taken += keeping.course.cost(SLEEPER, idle_s)
        safe += keeping.safe.cost(SLEEPER, idle_s)
        keeping.ended(idle_s, now)
    dearest = max(break_even(SLEEPER).cost(SLEEPER, 1e6), SLEEPER.wait * 47.0)
    assert taken <= 1.1 * safe + 3 * dearest


def test_a_new_model_learns_from_the_habits_of_all():
    """One idle time of its own is enough where all others have the same habit."""
    habits = Habits()
    old = Keeping(habits, SLEEPER)
    for hour in range(200):
        old.ended(3500.0, hour * 3600.0)
    new = Keeping(habits, SLEEPER)
    new.ended(3500.0, 200 * 3600.0)
    assert new.learned is not None
    assert new.learned.place_at(3500.0) < new.learned.place_at(600.0)


def test_a_keeping_outlives_a_restart():
    """What it learned, and that it had earned its place, is there again."""
    keeping = Keeping(Habits(), SLEEPER)
    for hour in range(60):
        keeping.ended(3500.0, hour * 3600.0)
    again = Keeping(Habits(), SLEEPER)
    again.restore(keeping.state(), 5.0)
    assert again.is_learned
    assert again.course == keeping.course != keeping.safe


def test_prices_change_and_what_was_learned_stays():
    """A start that was measured to be slower keeps replicas for longer."""
    keeping = Keeping(Habits())
    keeping.ended(50.0, 100.0)
    keeping.price(two_rungs(20.0))
    assert keeping.course == break_even(two_rungs(20.0)) != ALWAYS_COLD
    assert keeping.learned is not None


def test_among_equals_the_last_comer_gives_way():
    """So that a few stay and are found, where more are asked for in turn than there is room for."""
    residents = [Resident("old", 1.0, since=1.0), Resident("newer", 1.1, since=2.0), Resident("newest", 1.0, since=3.0)]
    assert first_to_go(residents).name == "newest"


def test_who_is_clearly_worth_less_goes_first():
    """Whoever came last or not."""
    residents = [Resident("seldom", 1.0, since=1.0), Resident("often", 1.01 * CLEARLY, since=2.0)]
    assert first_to_go(residents).name == "seldom"
