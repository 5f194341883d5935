"""Edits of `server` while clients are connected: addresses, TLS, keys and bounds count, and streams go on."""

import hashlib
import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from tritonclient.grpc import InferInput, service_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from scripts.benchmarks.programs import free_port
from tests.e2e.edits import ECHO, OTHER, Edited, editing
from tests.e2e.program import DEADLINE_S, Stream, call, chat, chat_body, connect, metric, text_of, until

LONG = "slow " + "word " * 150


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edited]:
    """Run one program for all tests of this module; each begins with its own edit."""
    with editing(tmp_path_factory.mktemp("edited"), ECHO) as found:
        yield found


def ask(kept: http.client.HTTPConnection, body: object, key: str = "") -> http.client.HTTPResponse:
    """Ask for a chat over a connection that is kept; return the response, read to its end."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    kept.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = kept.getresponse()
    response.read()
    return response


def keys(**limits: str) -> str:
    """Write keys: each is its name in capital letters."""
    items = (
        f"{{name: {name}, sha256: {hashlib.sha256(name.upper().encode()).hexdigest()}{more}}}"
        for name, more in limits.items()
    )
    return f"keys: [{', '.join(items)}]"


def test_keys_count_at_once_on_kept_connections(edited: Edited) -> None:
    """A key that comes may call, one that goes is refused, and buckets go on under their new size."""
    body = chat_body("echo", "with a key", temperature=0)
    edited.edit(edited.text(ECHO))
    with closing(connect(edited.url)) as kept:
        assert ask(kept, body).status == 200
        edited.edit(edited.text(ECHO, server=keys(one=", requests_per_minute: 100")))
        assert ask(kept, body).status == 401
        for left in (99, 98):
            response = ask(kept, body, "ONE")
            assert response.status == 200
            assert int(response.headers["x-ratelimit-remaining-requests"]) in (left, left + 1)
        edited.edit(edited.text(ECHO, server=keys(one=", requests_per_minute: 10", two="")))
        response = ask(kept, body, "ONE")
        assert response.headers["x-ratelimit-limit-requests"] == "10"
        assert int(response.headers["x-ratelimit-remaining-requests"]) in (8, 9)
        assert ask(kept, body, "TWO").status == 200
        edited.edit(edited.text(ECHO, OTHER, server=keys(two=", models: [other]")))
        assert ask(kept, body, "ONE").status == 401
        assert ask(kept, body, "TWO").status == 403
        edited.edit(edited.text(ECHO))
        assert ask(kept, body).status == 200


def test_bounds_count_on_kept_connections(edited: Edited) -> None:
    """A smaller body limit and a shorter deadline hold for the next request of a client that stays connected."""
    body = chat_body("echo", "x" * 3000)
    edited.edit(edited.text(ECHO))
    with closing(connect(edited.url)) as kept:
        assert ask(kept, body).status == 200
        edited.edit(edited.text(ECHO, server="max_body: 2KiB, request_timeout: 200ms"))
        assert ask(kept, chat_body("echo", "stall")).status == 504
        assert ask(kept, body).status == 413
    with closing(connect(edited.url)) as kept:
        assert ask(kept, body).status == 413
        edited.edit(edited.text(ECHO))
    with closing(connect(edited.url)) as kept:
        assert ask(kept, body).status == 200


def test_places_are_counted_from_now_on(edited: Edited) -> None:
    """With fewer places those who are connected stay; who comes is told that all are taken, until there are more."""
    body = chat_body("echo", "hello")
    edited.edit(edited.text(ECHO))
    with ExitStack() as stack:
        kept = [stack.enter_context(closing(connect(edited.url))) for _ in range(3)]
        assert [ask(each, body).status for each in kept] == [200] * 3
        edited.edit(edited.text(ECHO, server="max_connections: 8"))  # there are five left to look at it

        def one_more_comes() -> bool:
            fresh = stack.enter_context(closing(connect(edited.url)))
            kept.extend([fresh] if ask(fresh, body).status == 200 else ())
            return len(kept) == 8

        until(one_more_comes, "all places are taken")
        assert call(edited.url, "GET", "/healthz").error["code"] == "too_many_connections"
        for each in kept[3:]:
            each.close()
        until(lambda: call(edited.url, "GET", "/healthz").status == 200, "places are free")
        until(lambda: metric(edited.url, "warmgate_connections") == 4, "their places are free, all but the asker's")
        edited.edit(edited.text(ECHO))
        assert [ask(each, body).status for each in kept[:3]] == [200] * 3
    assert metric(edited.url, "warmgate_connections_refused_total") >= 1


def test_listening_elsewhere(edited: Edited) -> None:
    """The new address is listened at, the old one no more; a stream and a connection made before go on."""
    old = edited.url
    edited.edit(edited.text(ECHO))
    with closing(connect(old)) as kept, Stream(old, "echo", LONG) as stream:
        first = next(stream.texts())
        assert ask(kept, chat_body("echo", "before")).status == 200
        generation = edited.state()["generation"]

        text = edited.text(ECHO)
        edited.url = f"http://127.0.0.1:{free_port()}"
        edited.rename_over(text.replace(old.rpartition("/")[2], edited.url.rpartition("/")[2]))

        until(lambda: listens(edited.url), "the new address is listened at")
        until(lambda: edited.state()["generation"] == generation + 1, "the edit is in force")
        assert not listens(old)
        assert ask(kept, chat_body("echo", "after")).status == 200
        assert len((first + "".join(stream.texts())).split()) == 152


def listens(url: str) -> bool:
    """Tell whether anybody answers there."""
    try:
        return call(url, "GET", "/healthz").status == 200
    except ConnectionRefusedError:
        return False


def test_all_addresses_and_one_at_the_same_port(edited: Edited) -> None:
    """A port goes over from one address of the machine to all of them, and back."""
    edited.edit(edited.text(ECHO))
    edited.edit(edited.text(ECHO).replace("127.0.0.1:", "0.0.0.0:", 1))
    assert text_of(chat(edited.url, "echo", "everywhere")) == "echo: everywhere"
    edited.edit(edited.text(ECHO))
    assert text_of(chat(edited.url, "echo", "here")) == "echo: here"


def write(directory: Path, name: str) -> tuple[ssl.SSLContext, bytes, str]:
    """Write a new certificate; return a client that trusts it, its authority, and the settings."""
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(directory / name)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    both = directory / name
    return trusting, authority.cert_pem.bytes(), f"tls: {{certificate: {both}, key: {both}}}"


def over_tls(url: str, trusting: ssl.SSLContext) -> int:
    """Ask over a new connection with TLS; return the status, or 0 where no trust comes about."""
    connection = http.client.HTTPSConnection(url.rpartition("/")[2], context=trusting, timeout=DEADLINE_S)
    with closing(connection):
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        except ssl.SSLError:
            return 0


def test_tls_comes_is_renewed_and_goes_under_a_stream(edited: Edited) -> None:
    """A stream begun without TLS flows on while TLS comes, its certificate is renewed on disk, and it goes again."""
    edited.edit(edited.text(ECHO))
    first_client, _, server = write(edited.directory, "one.pem")
    with Stream(edited.url, "echo", LONG + "tls") as stream:
        first = next(stream.texts())
        edited.rename_over(edited.text(ECHO, server=server))
        until(lambda: _quietly(edited.url, first_client), "TLS is there")
        second_client, _, _ = write(edited.directory, "one.pem")
        until(lambda: over_tls(edited.url, second_client) == 200, "the renewed certificate is used")
        assert over_tls(edited.url, first_client) == 0
        edited.rename_over(edited.text(ECHO))
        until(lambda: _quietly(edited.url, None), "TLS is gone")
        assert len((first + "".join(stream.texts())).split()) == 153


def _quietly(url: str, trusting: ssl.SSLContext | None) -> bool:
    """Tell whether a new connection works, with TLS or without."""
    try:
        return (call(url, "GET", "/healthz").status if trusting is None else over_tls(url, trusting)) == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def question(text: str) -> pb.ModelInferRequest:
    """Make a request of the Open Inference Protocol for a text."""
    made = InferInput("text_input", [1], "BYTES")
    made.set_data_from_numpy(np.array([text.encode()], np.object_))
    request = pb.ModelInferRequest(model_name="echo", inputs=[made._get_tensor()])
    if (raw := made._get_content()) is not None:
        request.raw_input_contents.append(raw)
    return request


def streamed(address: str) -> Iterator[str]:
    """Begin a stream of texts over gRPC; its connection lives as long as it does."""
    with grpc.insecure_channel(address) as channel:
        for reply in service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([question(LONG)])):
            assert not reply.error_message
            yield "".join(raw[4:].decode() for raw in reply.infer_response.raw_output_contents)


def live(address: str) -> bool:
    """Tell whether gRPC is served there, to a client of its own."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return bool(stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live)
        except grpc.RpcError:
            return False


def test_grpc_comes_changes_moves_and_goes_under_its_streams(edited: Edited) -> None:
    """Streams flow to their ends over each of these; new calls are taken where the settings say, and only there."""
    one, other = (f"127.0.0.1:{free_port()}" for _ in range(2))
    assert not live(one)
    edited.edit(edited.text(ECHO, server=f"grpc: '{one}'"))
    streams = []
    for server, before, after in (
        (f"grpc: '{one}', max_body: 1MiB", one, one),
        (f"grpc: '{other}'", one, other),
        ("request_timeout: 60s", other, None),
    ):
        stream = streamed(before)
        streams.append((next(stream), stream))
        edited.edit(edited.text(ECHO, server=server))
        assert after is None or live(after)
        until(lambda old=before, new=after: old == new or not live(old), "the old address is left")
    for begun, stream in streams:
        assert len((begun + "".join(stream)).split()) == 152
