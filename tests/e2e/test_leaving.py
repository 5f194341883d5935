"""Clients that leave, over every wire and at every stage: exactly their own share is cancelled, down to the upstream.

Nothing here is about how fast: `python -m scripts.benchmarks.leaving` measures that.
"""

import hashlib
import itertools
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing

import grpc
import psutil
import pytest

from scripts.benchmarks.askers import WIRES, GrpcClient, HttpClient
from tests.e2e.hanging_house import (
    ALL,
    ALONE,
    BEARER,
    COLD_OF,
    GRPC,
    SHARED,
    SLOTS,
    STREAMED,
    TWO,
    House,
    hanging,
)
from tests.e2e.program import call, chat_body, until
from tests.e2e.test_oip_grpc import address

KEYS = [
    {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "concurrency": concurrency}
    for name, key, concurrency in (("alone", ALONE, 1), ("two", TWO, 8))
]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Serve to a key for one request at a time and one for more."""
    directory = tmp_path_factory.mktemp("leaving")
    queue = f"batch: {{directory: {directory / 'batch'}, callback_secret: s3cret}}\n"
    with hanging(directory, server=f"keys: {json.dumps(KEYS)}, ", more=queue) as found:
        yield found


@pytest.fixture
def text() -> str:
    """Return words that nobody has asked before."""
    return f"number {next(_numbers)};"


@pytest.fixture(autouse=True)
def calm(house: House) -> Iterator[None]:
    """Check that a test leaves nothing: no job, no place, no connection, and a key that may ask again."""
    yield
    house.wait_calm()
    until(lambda: not connections(house), "no client is connected")
    body = chat_body("near", f"quick {next(_numbers)}")
    for key in BEARER.values():
        assert call(house.gateway.url, "POST", "/v1/chat/completions", body, **key).status == 200


def connections(house: House) -> list[int]:
    """Return what is connected to the gateway's HTTP."""
    port = int(house.gateway.url.rpartition(":")[2])
    of_gateway = psutil.Process(house.gateway.process.pid).net_connections("tcp")
    return [each.fd for each in of_gateway if each.laddr.port == port and each.status != psutil.CONN_LISTEN]


def check_forgotten(house: House, name: str, text: str, key: str = ALONE) -> None:
    """Check that nothing of an answer that was cancelled is remembered."""
    if name not in WIRES:
        return
    with HttpClient(house.gateway.url, WIRES[name], text, BEARER[key] | {"Cache-Control": "only-if-cached"}) as again:
        response = again.response
        assert (response.status, b"cached" in response.read()) == (504, True)


def model_of(name: str) -> str:
    """Return the model that a wire asks."""
    return WIRES[name].model if name in WIRES else "near"


@pytest.mark.parametrize("name", ALL)
def test_before_the_first_token(house: House, name: str, text: str) -> None:
    """Who leaves while the model is silent is left off by the upstream at once, and the key is free."""
    client = house.ask(name, f"{text} silent")
    exchange = house.arrived(text)
    assert house.readings("in_flight")[model_of(name)] == 1
    client.leave()

    until(lambda: exchange.ended_s, "the upstream's client has left")
    assert not exchange.answered
    until(lambda: not house.readings("in_flight")[model_of(name)], "nothing is in flight")
    check_forgotten(house, name, f"{text} silent")


@pytest.mark.parametrize("name", STREAMED)
def test_mid_stream(house: House, name: str, text: str) -> None:
    """Who leaves in the midst of a stream ends it at the upstream; what had come is not kept."""
    client = house.ask(name, f"{text} partly")
    client.until_begun()
    exchange = house.arrived(text)
    client.leave()

    until(lambda: exchange.ended_s, "the upstream's client has left")
    assert not exchange.answered
    check_forgotten(house, name, f"{text} partly")


@pytest.mark.parametrize("name", [name for name in ALL if name not in STREAMED])
def test_in_the_midst_of_a_whole_answer(house: House, name: str, text: str) -> None:
    """Who wants the whole answer and leaves when a part of it has come to the gateway is no different."""
    client = house.ask(name, f"{text} partly")
    exchange = house.arrived(text)
    client.leave()

    until(lambda: exchange.ended_s, "the upstream's client has left")
    assert not exchange.answered
    check_forgotten(house, name, f"{text} partly")


@pytest.mark.parametrize("name", ALL)
def test_queued(house: House, name: str, text: str) -> None:
    """Who leaves the queue frees the place, and the upstream never hears of the question."""
    model = model_of(name)
    kind = next(each for each in WIRES if WIRES[each].model == model)
    with ExitStack() as stack:
        for number in range(SLOTS):
            holder = house.ask(kind, f"{text} silent holder {number}", TWO)
            stack.callback(holder.leave)
            house.arrived(f"{text} silent holder {number}")
        client = house.ask(name, f"{text} waits")
        house.wait_queued(model, 1)
        client.leave()

        house.wait_queued(model, 0)
    until(lambda: not house.readings("in_flight")[model], "the holders have left")
    assert not house.upstream.about(f"{text} waits")


@pytest.mark.parametrize("name", [name for name in ALL if "relay" not in name])
def test_while_a_worker_starts(house: House, name: str, text: str) -> None:
    """Who leaves during a cold start frees the place in the queue; another's stays."""
    model = COLD_OF[model_of(name)]
    stays = house.ask(name, f"{text} stays", TWO, model)
    house.wait_queued(model, 1)
    client = house.ask(name, f"{text} leaves", ALONE, model)
    house.wait_queued(model, 2)
    client.leave()

    house.wait_queued(model, 1)
    stays.leave()
    house.wait_queued(model, 0)


@pytest.mark.parametrize("stage", ["silent", "partly"])
@pytest.mark.parametrize("who", ["leader", "follower", "both"])
@pytest.mark.parametrize("name", SHARED)
def test_of_two_who_share(house: House, name: str, who: str, stage: str, text: str) -> None:
    """Of two who share an answer one leaves: the other's goes on, and comes whole. When both have left it ends."""
    asked = f"{text} {stage}"
    clients = {"leader": house.ask(name, asked, TWO)}
    exchange = house.arrived(asked)
    clients["follower"] = house.ask(name, asked, TWO)
    house.wait_seats(2)
    if stage == "partly" and name in STREAMED:
        for client in clients.values():
            client.until_begun()
    clients.pop("leader" if who == "both" else who).leave()
    house.wait_seats(1)
    (other,) = clients.values()
    assert exchange.ended_s is None
    if who == "both":
        other.leave()
        until(lambda: exchange.ended_s, "the upstream's client has left")
        assert not exchange.answered
        check_forgotten(house, name, asked, TWO)
    else:
        exchange.go_on.set()
        other.finish()
        assert exchange.answered
        other.leave()


@pytest.mark.parametrize("how", ["reset", "after a second request", "after a part of one"])
@pytest.mark.parametrize("stage", ["silent", "partly"])
def test_ways_to_leave(house: House, how: str, stage: str, text: str) -> None:
    """A reset, or a request that was sent ahead, hides no leaving."""
    with HttpClient(house.gateway.url, WIRES["chat-stream"], f"{text} {stage}", BEARER[ALONE]) as client:
        exchange = house.arrived(text)
        if stage == "partly":
            client.until_begun()
        ahead = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            client.socket.sendall(ahead if "second" in how else ahead[:-5])

    until(lambda: exchange.ended_s, "the upstream's client has left")
    assert not exchange.answered


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("name", ["chat", "chat-stream"])
def test_who_sends_no_more_has_not_left(house: House, name: str, version: str, text: str) -> None:
    """A client that ends its own half of the connection still gets its answer."""
    with HttpClient(house.gateway.url, WIRES[name], f"{text} silent", BEARER[ALONE], version=version) as client:
        exchange = house.arrived(text)
        client.socket.shutdown(socket.SHUT_WR)
        call(house.gateway.url, "GET", "/healthz")
        exchange.go_on.set()

        assert b"begun" in client.finish()
    assert exchange.answered


@pytest.mark.parametrize("name", ["chat", "chat-stream"])
def test_who_leaves_with_the_old_version(house: House, name: str, text: str) -> None:
    """A client of HTTP/1.0 that closes its connection, as a proxy does for its own, ends its work."""
    with HttpClient(house.gateway.url, WIRES[name], f"{text} silent", BEARER[ALONE], version="1.0"):
        exchange = house.arrived(text)

    until(lambda: exchange.ended_s, "the upstream's client has left")
    assert not exchange.answered


def test_channel_that_is_closed(house: House, text: str) -> None:
    """Who closes its channel of gRPC leaves all its calls."""
    with closing(grpc.insecure_channel(address(house.gateway))) as channel:
        metadata = {name.lower(): value for name, value in BEARER[TWO].items()}
        calls = [GrpcClient(channel, name, f"{text} {name} silent", metadata=metadata) for name in GRPC]
        exchanges = [house.arrived(f"{text} {name}") for name in GRPC]

    until(lambda: all(exchange.ended_s for exchange in exchanges), "the upstream's clients have left")
    for each in calls:
        each.leave()


@pytest.mark.parametrize("stage", ["silent", "partly"])
def test_batch_that_is_cancelled(house: House, stage: str, text: str) -> None:
    """Deleting a batch ends the item that is worked on, and begins no other."""
    url, bearer = house.gateway.url, BEARER[ALONE]
    order = {"model": "near", "inputs": [f"{text} {stage} {number}" for number in range(9)]}
    ordered = call(url, "POST", "/api/v1/batch", order, **bearer)
    assert ordered.status == 202, ordered.body
    exchange = house.arrived(text)
    assert call(url, "DELETE", ordered.headers["location"], **bearer).status == 200

    until(lambda: exchange.ended_s, "the upstream's client has left")
    assert not exchange.answered
    until(lambda: not house.readings("in_flight")["near"], "nothing is in flight")
    assert len(house.upstream.about(text)) == 1
