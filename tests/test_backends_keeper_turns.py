"""Models that compete for memory which holds one of them: the keeper lets them take turns."""

import asyncio
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import Finish, Text
from backends.costs import CostSeed
from backends.pool import PoolLimits
from backends.turns import LONGEST_WAIT_S
from tests.fakes import FakeEngine, run_virtual
from tests.test_backends_keeper import Rooms

SIZE = 100 * 2**20
LIMITS = PoolLimits(max_replicas=1, queue=64, start_timeout_s=60.0, keep_warm_s=60.0)


def served(jobs: Iterable[tuple[float, str]], start_s: float = 2.0, service_s: float = 1.0) -> list[tuple[str, float]]:
    """Ask for models at times, where there is room for one: the models in the order of service, and each one's wait."""
    done: list[tuple[str, float]] = []

    async def main() -> None:
        async with Rooms(budget_bytes=SIZE) as rooms:
            asked = list(jobs)
            for model in dict.fromkeys(model for _, model in asked):
                engine = FakeEngine([service_s, Text("x"), Finish("stop")], start_s=start_s, memory_bytes=SIZE)
                seed = CostSeed(start_s=start_s, memory_bytes=SIZE, service_s=service_s)
                rooms.add(model, engine, LIMITS, seed)

            async def ask(at_s: float, model: str) -> None:
                await asyncio.sleep(at_s)
                began = rooms.clock()
                await rooms.ask(model, timeout_s=100_000.0)
                done.append((model, rooms.clock() - began))

            async with asyncio.TaskGroup() as asking:
                for job in asked:
                    asking.create_task(ask(*job))

    run_virtual(main())
    return done


def test_requests_run_model_by_model():
    """A B A A C A becomes A A A A B C."""
    done = served((0.1 * place, model) for place, model in enumerate("ABAACA"))

    assert " ".join(model for model, _ in done) == "A A A A B C"


def test_a_model_that_is_asked_all_the_time_lets_another_in():
    """Beside a model whose queue is never empty, another is served soon after the longest wait."""
    jobs = [(0.9 * place, "A") for place in range(120)]
    waits = dict(served([*jobs, (5.0, "B")]))

    assert LONGEST_WAIT_S <= waits["B"] <= LONGEST_WAIT_S + 6.0


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from("ABCD")), min_size=1, max_size=25), st.floats(0.1, 10))
def test_nobody_starves(jobs, start_s):
    """Whoever asks is served, whatever else is asked for."""
    done = served(jobs, start_s)

    assert sorted(model for model, _ in done) == sorted(model for _, model in jobs)
    assert max(wait_s for _, wait_s in done) <= 2 * len(jobs) + 4 * (LONGEST_WAIT_S + 3 * start_s + 5.0)
