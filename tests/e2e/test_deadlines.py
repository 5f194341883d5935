"""Deadlines that clients give, over every wire and at every stage: the answer, or 504 in the wire's own shape."""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import IncompleteRead
from typing import Any, TypeVar

import grpc
import pytest

from gateway.surfaces.oip.proto import inference_pb2 as pb
from scripts.benchmarks.askers import WIRES, GrpcClient, HttpClient
from scripts.benchmarks.hanging import Upstream, models_of
from tests.e2e.hanging_house import COLD_OF, SLOTS, STREAMED, House, hanging
from tests.e2e.program import config, started, until

SHORT, LONG = {"X-Request-Timeout": "0.15"}, {"X-Request-Timeout": "600"}
DEADLINES_S = (0.25, 1.0, 4.0, 16.0)
TOLD = re.compile(rb"within \d+\.\d\d s")
HTTP_STREAMS = [name for name in STREAMED if name in WIRES]
_numbers = itertools.count(1)
R = TypeVar("R")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Serve to whoever asks."""
    with hanging(tmp_path_factory.mktemp("deadlines")) as found:
        yield found


@pytest.fixture
def text() -> str:
    """Return words that nobody has asked before."""
    return f"deadline {next(_numbers)};"


@pytest.fixture(autouse=True)
def calm(house: House) -> Iterator[None]:
    """Check that a test leaves nothing."""
    yield
    house.wait_calm()


class TooSoon(Exception):
    """The deadline passed before what the test wants to see under way was: a busy machine needs a longer one."""


def with_enough_time(attempt: Callable[[float], None]) -> None:
    """Run this with the first deadline that leaves it the time to get as far as it has to."""
    for within_s in DEADLINES_S:
        try:
            return attempt(within_s)
        except TooSoon:
            continue
    pytest.fail(f"the deadline came too soon even at {DEADLINES_S[-1]:g} s")


def by(ends_s: float, look: Callable[[], R | None]) -> R:
    """Return what `look` finds. Raises `TooSoon` where it finds nothing by then."""
    while not (found := look()):
        if time.monotonic() > ends_s:
            raise TooSoon
        time.sleep(0.005)
    return found


def ask(house: House, name: str, text: str, said: dict[str, str], model: str | None = None) -> HttpClient:
    """Ask over HTTP."""
    return HttpClient(house.gateway.url, WIRES[name], text, said, model)


def check_shape(name: str, status: int, body: bytes) -> None:
    """Check that an error is in the wire's own shape."""
    told: Any = json.loads(body)
    assert status == 504, body
    if name.startswith("messages"):
        assert (told["type"], told["error"]["type"]) == ("error", "timeout_error")
    elif name.startswith("oip"):
        assert isinstance(told["error"], str)
    else:
        assert told["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("name", WIRES)
def test_before_the_first_token(house: House, name: str, text: str) -> None:
    """A model that is silent for too long is left, and the client is told."""

    def attempt(within_s: float) -> None:
        asked = f"{text} silent {within_s}"
        with ask(house, name, asked, {"X-Request-Timeout": str(within_s)}) as client:
            check_shape(name, client.response.status, client.response.read())
        exchange = by(0, lambda: next(iter(house.upstream.about(asked)), None))
        until(lambda: exchange.ended_s, "the upstream has been left")
        assert not exchange.answered

    with_enough_time(attempt)


@pytest.mark.parametrize("name", WIRES)
def test_queued(house: House, name: str, text: str) -> None:
    """A place in the queue is held no longer than the client waits."""
    model = WIRES[name].model
    kind = next(each for each in WIRES if WIRES[each].model == model)
    with ExitStack() as stack:
        for number in range(SLOTS):
            stack.enter_context(ask(house, kind, f"{text} silent holder {number}", {}))
            house.arrived(f"{text} silent holder {number}")
        with ask(house, name, f"{text} waits", SHORT) as client:
            check_shape(name, client.response.status, client.response.read())
        assert house.readings("queued")[model] == 0
    assert not house.upstream.about(f"{text} waits")


@pytest.mark.parametrize("name", [name for name in WIRES if "relay" not in name])
def test_while_a_worker_starts(house: House, name: str, text: str) -> None:
    """A cold start that takes longer than the client waits is a 504."""
    model = COLD_OF[WIRES[name].model]
    with ask(house, name, text, SHORT, model) as client:
        check_shape(name, client.response.status, client.response.read())
    assert house.readings("queued")[model] == 0


@pytest.mark.parametrize("name", HTTP_STREAMS)
def test_mid_stream(house: House, name: str, text: str) -> None:
    """A stream that is not complete in time ends with the wire's event of an error; one of bytes breaks off."""

    def attempt(within_s: float) -> None:
        asked = f"{text} partly {within_s}"
        with ask(house, name, asked, {"X-Request-Timeout": str(within_s)}) as client:
            if client.response.status == 504:
                raise TooSoon
            client.until_begun()
            if name == "relay-stream":
                with pytest.raises(IncompleteRead):
                    client.response.read()
            else:
                rest = client.response.read()
                assert b"complete" in rest
                assert b"in time" in rest or TOLD.search(rest)
                assert b'"error"' in rest
                assert b"[DONE]" not in rest
                assert client.response.status == 200
        assert not house.arrived(asked).answered

    with_enough_time(attempt)


@pytest.mark.parametrize("stage", ["silent", "partly"])
@pytest.mark.parametrize("hasty", ["leader", "follower"])
@pytest.mark.parametrize("name", ["chat", "chat-stream", "messages-stream", "oip-stream"])
def test_each_has_its_own(house: House, name: str, hasty: str, stage: str, text: str) -> None:
    """Of two who share an answer the one with less time is told so; the other gets all of it."""

    def attempt(within_s: float) -> None:
        asked = f"{text} {stage} {within_s}"
        said = {"leader": LONG, "follower": LONG, hasty: {"X-Request-Timeout": str(within_s)}}
        with ask(house, name, asked, said["leader"]) as leader:
            ends_s = time.monotonic() + within_s
            exchange = by(ends_s, lambda: next(iter(house.upstream.about(asked)), None))
            with ask(house, name, asked, said["follower"]) as follower:
                by(max(ends_s, time.monotonic() + within_s), lambda: house.seats() == 2)
                first, other = (leader, follower) if hasty == "leader" else (follower, leader)
                with pytest.raises(RuntimeError, match=TOLD.pattern.decode()):
                    first.finish()
                assert exchange.ended_s is None
                exchange.go_on.set()
                assert b"begun" in other.finish()
        assert exchange.answered

    with_enough_time(attempt)


@pytest.mark.parametrize("said", ["0", "-1", "soon", "nan", "inf", "1_0", "", "0.0001", "1e-9"])
@pytest.mark.parametrize("name", ["chat", "messages", "responses", "native", "oip-infer", "relay"])
def test_what_is_no_deadline(house: House, name: str, said: str, text: str) -> None:
    """What is no time that one could wait is the client's error."""
    with ask(house, name, text, {"X-Request-Timeout": said}) as client:
        assert client.response.status == 400
        assert b"X-Request-Timeout must be a number of seconds" in client.response.read()
    assert not house.upstream.about(text)


@pytest.mark.parametrize("said", ["9" * 400, "1000000", "0.001"])
def test_hits_have_no_deadline(house: House, said: str, text: str) -> None:
    """What is cached is answered however little time there is; more than is allowed is no error."""
    with ask(house, "chat", text, {}) as client:
        assert b"begun" in client.finish()
    with ask(house, "chat", text, {"X-Request-Timeout": said}) as client:
        assert b"begun" in client.finish()
        assert "hit" in client.response.headers["Cache-Status"]


@pytest.mark.parametrize("stage", ["silent", "partly", "queued", "cold"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_grpc(house: House, method: str, stage: str, text: str) -> None:
    """A call of gRPC ends with its deadline, down to the upstream."""
    with ExitStack() as stack:
        for number in range(SLOTS if stage == "queued" else 0):
            stack.enter_context(ask(house, "chat", f"{text} silent holder {number}", {}))
            house.arrived(f"{text} silent holder {number}")
        model = "cold" if stage == "cold" else "near"

        def attempt(within_s: float) -> None:
            asked = f"{text} {stage} {within_s}"
            client = GrpcClient(house.channel, method, asked, model=model, timeout_s=within_s)
            with pytest.raises(grpc.RpcError) as caught:
                client.finish() if method == "ModelInfer" else _all(client)
            client.leave()
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            until(lambda: not house.readings("queued")[model], "nobody waits")
            if stage in ("silent", "partly"):
                exchange = by(0, lambda: next(iter(house.upstream.about(asked)), None))
                until(lambda: exchange.ended_s, "the upstream has been left")
            else:
                assert not house.upstream.about(asked)

        with_enough_time(attempt)


def _all(client: GrpcClient) -> list[pb.ModelStreamInferResponse]:
    """Read on without ending the stream of requests: an error that is a reply is passed over."""
    return list(client.call)


def test_more_than_the_operator_allows(tmp_path: Any, text: str) -> None:
    """A client cannot wait for longer than the operator lets any."""
    with Upstream() as upstream:
        models = [f"  {name}: {said}" for name, said in models_of(upstream).items()]
        with (
            started(config(tmp_path, *models, server="request_timeout: 200ms"), tmp_path) as (gateway, _),
            HttpClient(gateway.url, WIRES["chat"], f"{text} silent", LONG) as client,
        ):
            assert client.response.status == 504
            assert TOLD.search(client.response.read())
