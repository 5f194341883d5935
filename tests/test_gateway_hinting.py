"""Hints of what will be asked for: what is granted, what it costs, and what it does to a pool."""

import asyncio
from typing import Any

import orjson
import pytest

from backends.hints import CREDIT_LASTS_S, LEAST_BYTES, Credits
from backends.snapshot import PoolSnapshot
from gateway.callers.auth import Gatekeeper, Key
from gateway.errors import Forbidden, InvalidRequest, RateLimited, UnknownModel
from gateway.pages.hinting import SOON_S, USUAL_S, WARM_PATH, Hinting, HintPages
from gateway.request import Caller
from gateway.routes import Route
from gateway.surfaces.wire import Call
from tests.fakes import FakeEngine, run_virtual
from tests.test_gateway_pipeline import House

ANYONE = Caller(scope="")
WALL_S = 5000.0


class Hints:
    """A house whose hints have a credit for one model of the least size, for an hour."""

    def __init__(
        self, credit_bytes: int = LEAST_BYTES, keys: tuple[Key, ...] = (), upstreams: tuple[str, ...] = ()
    ) -> None:
        self.house = House(
            {"a": FakeEngine(), "b": FakeEngine(start_s=3.0)},
            {"route": Route("route", ("a", "b"), (0.1, 0.9)), "mine": Route("mine", ("a",))},
        )
        self.clock = asyncio.get_running_loop().time
        self.hinting = Hinting(
            self.house.pipeline._routes, self.house.pools, Credits(credit_bytes), self.house.telemetry,
            upstreams=upstreams, clock=self.clock,
        )  # fmt: skip
        self.pages = HintPages(self.hinting, Gatekeeper(keys), lambda: WALL_S)

    def pool(self, model: str) -> PoolSnapshot:
        """Return what a pool looks like now."""
        return self.house.pools[model].snapshot(self.clock())

    async def post(self, model: str, body: Any = None, peer: str = "127.0.0.1", **headers: str) -> Any:
        """Ask the page."""
        page = self.pages.table()["POST", WARM_PATH]
        sent = b"" if body is None else orjson.dumps(body)
        call = Call("POST", WARM_PATH, {"host": "x", **headers}, sent, peer, names={"model": model})
        reply = await page(call)
        assert isinstance(reply.body, bytes)
        return orjson.loads(reply.body)


def test_a_hint_says_what_was_granted_and_until_when():
    """Without a body it is ten minutes of one replica; the pool has them, and the credit is that much less."""

    async def main() -> None:
        hints = Hints()

        told = await hints.post("a")

        assert told == {
            "model": "a", "replicas": 1, "for_s": USUAL_S, "until": WALL_S + USUAL_S, "in_full": True,
            "credit_left": round(1 - USUAL_S / CREDIT_LASTS_S, 4),
        }  # fmt: skip
        assert hints.pool("a").hinted == 1
        assert b'warmgate_pool_hints_total{model="a",result="granted",source="admin"} 1.0' in (
            hints.house.telemetry.exposition()
        )
        await asyncio.sleep(USUAL_S)
        assert hints.pool("a").hinted == 0

    run_virtual(main())


def test_no_hints_keep_a_model_warm_for_ever():
    """What is beyond the credit is granted in part, and then refused with the time until there is enough."""

    async def main() -> None:
        hints = Hints()

        partly = await hints.post("a", {"for_s": 2 * CREDIT_LASTS_S})
        assert (partly["for_s"], partly["in_full"], partly["credit_left"]) == (CREDIT_LASTS_S, False, 0.0)
        with pytest.raises(RateLimited, match="hint_memory") as refused:
            await hints.post("b")
        assert refused.value.retry_after_s > 0

    run_virtual(main())


def test_what_was_granted_is_not_paid_twice():
    """Who says again what holds already pays for the time that comes on top."""

    async def main() -> None:
        hints = Hints()
        await hints.post("a", {"for_s": 1000})
        await asyncio.sleep(400)

        again = await hints.post("a", {"for_s": 1000})

        assert again["for_s"] == pytest.approx(1000)
        paid_s = CREDIT_LASTS_S * (1 - again["credit_left"])
        assert paid_s == pytest.approx(1400, abs=25)  # the credit comes back a little meanwhile

    run_virtual(main())


def test_a_hint_asks_for_no_more_replicas_than_may_run():
    """What is granted is what the pool's maximum leaves, and that is not the hint in full."""

    async def main() -> None:
        told = await Hints().post("a", {"replicas": 9})
        assert (told["replicas"], told["in_full"]) == (1, False)

    run_virtual(main())


def test_a_shorter_hint_takes_nothing_from_a_longer_one():
    """The answer tells the time for which the model is kept in truth, and costs nothing more."""

    async def main() -> None:
        hints = Hints()
        first = await hints.post("a", {"for_s": 300})

        again = await hints.post("a", {"for_s": 2})

        assert (again["for_s"], again["until"], again["in_full"]) == (300, WALL_S + 300, True)
        assert again["credit_left"] == first["credit_left"]
        await asyncio.sleep(299)
        assert hints.pool("a").hinted == 1

    run_virtual(main())


def test_a_route_is_hinted_at_by_its_name():
    """The hint comes to the model that the route asks the most, as a client's next one does."""

    async def main() -> None:
        hints = Hints()
        assert (await hints.post("route"))["model"] == "b"
        assert (hints.pool("a").hinted, hints.pool("b").hinted) == (0, 1)

    run_virtual(main())


def test_what_a_hint_cannot_warm_costs_nothing():
    """A model that answers elsewhere, one that is unloaded and one that fails to start take no credit."""

    async def main() -> None:
        hints = Hints(upstreams=("b",))
        with pytest.raises(InvalidRequest, match="b answers elsewhere"):
            await hints.post("b")
        assert hints.hinting.next_of("route", ANYONE) == "route; for=0"
        pool = hints.house.pools["a"]
        pool._failures.count, pool._failures.last = 2, "no such program\nits last lines: …"
        with pytest.raises(InvalidRequest, match=r"a does not start: no such program$"):
            await hints.post("a")
        pool._failures.count = 0
        pool.resting = True
        with pytest.raises(InvalidRequest, match="a is unloaded"):
            await hints.post("a")
        pool.resting = False
        assert (await hints.post("a", {"for_s": 36}))["credit_left"] == 0.99

    run_virtual(main())


@pytest.mark.parametrize(
    ("model", "body", "error"),
    [
        ("nobody", None, UnknownModel),
        ("a", {"for": 5}, InvalidRequest),
        ("a", {"for_s": 0}, InvalidRequest),
        ("a", {"replicas": 1.5}, InvalidRequest),
    ],
)
def test_a_wrong_hint_is_refused(model, body, error):
    """The refusal names the model, or the field and what is allowed."""

    async def main() -> None:
        with pytest.raises(error):
            await Hints().post(model, body)

    run_virtual(main())


def test_the_page_is_for_this_machine():
    """Other machines cannot have models warmed."""

    async def main() -> None:
        with pytest.raises(Forbidden):
            await Hints().post("a", peer="192.0.2.1")

    run_virtual(main())


def test_the_next_model_is_warm_until_it_is_likely_asked_for():
    """The model that a client declares as its next is started, and stays for a minute after it is up."""

    async def main() -> None:
        hints = Hints()
        hints.house.pools["b"].costs.learn_start(3.0)

        warmed = hints.hinting.soon("route", ANYONE)

        assert warmed.model == "b"
        assert warmed.for_s == pytest.approx(SOON_S + 3.0, rel=0.06)
        assert hints.pool("b").hinted == 1
        assert hints.hinting.soon("route", ANYONE).grant.for_s == pytest.approx(0.0, abs=1e-6)

    run_virtual(main())


def test_a_next_model_that_may_not_be_called_is_refused_by_name():
    """The refusal says what this caller may call."""

    async def main() -> None:
        caller = Caller(scope="key:x", models=("mine",))
        for name in ("a", "nobody"):
            with pytest.raises(InvalidRequest, match=r"may call \(mine\), got"):
                Hints().hinting.soon(name, caller)

    run_virtual(main())
