"""Purges and requests under way: who began before, who joins after, and what is kept of either."""

import asyncio
from collections.abc import Sequence

import pytest

from backends.contract import Finish, Text, Usage
from cache.purges import ALL, of_key, of_model, of_route, of_scope, of_tag, of_version
from gateway.caching.identity import fingerprint, scoped
from gateway.request import Directives
from tests.fakes import FakeEngine, run_virtual
from tests.test_gateway_pipeline import ANYONE, House, ask, house

KEY = scoped(fingerprint(ask()), ANYONE.scope, "a-1")
CONCERNED = (ALL, of_model("a"), of_version("a-1"), of_route("a"), of_scope(""), of_tag("news"), of_key(KEY))
OTHERS = (of_model("b"), of_version("a-2"), of_route("b"), of_scope("key:x"), of_tag("sport"), of_key(bytes(32)))
TAGGED = Directives(tags=("news",))


def script(go_on: asyncio.Event) -> Sequence[object]:
    """Answer once the test says so."""
    return (Text("yes"), go_on, Usage(3, 1), Finish("stop"))


async def half_way(built: House) -> asyncio.Task[bool]:
    """Ask, and return once the model has begun to answer; the task tells whether it was a hit."""
    jobs = len(built.engines["a"].backends[0].jobs) if built.engines["a"].backends else 0

    async def answered() -> bool:
        return (await built.get(ask(), TAGGED)).status.hit

    asking = asyncio.create_task(answered())
    while not built.engines["a"].backends or len(built.engines["a"].backends[0].jobs) == jobs:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # of virtual time, and nobody tells of it
    return asking


@pytest.mark.parametrize("group", CONCERNED)
def test_an_answer_that_a_purge_overtakes_is_given_and_not_kept(group):
    """Who asked before the purge has its answer; who asks after it is answered anew, and that is kept."""

    async def test() -> None:
        go_on = asyncio.Event()
        async with house({"a": FakeEngine(script(go_on))}) as built:
            asking = await half_way(built)
            await built.exact.purge(group)
            go_on.set()
            assert not await asking
            assert built.exact.counters.late == 1

            assert not (await built.get(ask(), TAGGED)).status.hit
            assert (await built.get(ask(), TAGGED)).status.hit
            await built.exact.close()

    run_virtual(test())


@pytest.mark.parametrize("group", OTHERS)
def test_a_purge_of_others_changes_nothing(group):
    """What another group's purge overtakes is kept, and work under way is joined."""

    async def test() -> None:
        go_on = asyncio.Event()
        async with house({"a": FakeEngine(script(go_on))}) as built:
            asking = await half_way(built)
            await built.exact.purge(group)
            joining = await built.pipeline.answer(ask(), ANYONE, TAGGED)
            go_on.set()
            await asyncio.gather(asking, built.pipeline.collect(joining))

            assert joining.status.collapsed
            assert (await built.get(ask(), TAGGED)).status.hit
            assert len(built.engines["a"].backends[0].jobs) == 1
            await built.exact.close()

    run_virtual(test())


@pytest.mark.parametrize("group", CONCERNED)
def test_nobody_joins_what_began_before_a_purge(group):
    """Who asks after the purge has a run of its own, whose answer is kept, whichever of the two ends last."""

    async def test() -> None:
        go_on = asyncio.Event()
        async with house({"a": FakeEngine(script(go_on), concurrency=2)}) as built:
            before = await half_way(built)
            await built.exact.purge(group)
            after = await half_way(built)
            third = await built.pipeline.answer(ask(), ANYONE, TAGGED)
            assert third.status.collapsed
            go_on.set()
            await asyncio.gather(before, after, built.pipeline.collect(third))

            assert len(built.engines["a"].backends[0].jobs) == 2
            assert built.exact.counters.late == 1
            assert (await built.get(ask(), TAGGED)).status.hit
            await built.exact.close()

    run_virtual(test())
