"""Streams of the Open Inference Protocol over gRPC: pieces, errors that end nothing, turns, and clients that leave."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import aio as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from backends.contract import Finish, Task, Text, WorkerDied
from tests.fakes import FakeEngine
from tests.oip_grpc_house import asked, chat, each, pair, said, served, stub, sums, typed, until
from tests.oip_house import oip_house


async def test_a_stream_gives_a_text_in_pieces():
    """A chat model's text comes piece by piece, and the empty last reply where the client asks for one."""
    request = service_pb2.ModelInferRequest(model_name="chat", id="3")
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"Hi")
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    async with stub(chat()) as calls:
        replies = [reply.infer_response async for reply in calls.ModelStreamInfer(iter([request]))]

    finals = [reply.parameters["triton_final_response"].bool_param for reply in replies]
    texts = [reply.raw_output_contents[0][4:] for reply in replies if reply.outputs]
    assert texts == [b"Hello ", b"world"]
    assert finals == [False, False, True]
    assert {reply.id for reply in replies} == {"3"}


async def test_an_error_is_a_reply_and_the_stream_goes_on():
    """One request that fails does not end the stream for those after it."""
    models = sums() | chat(Text("He"), WorkerDied("it fell"))
    requests = [
        {"model_name": "chat", "inputs": said()},
        {"model_name": "nobody", "inputs": said()},
        {"model_name": "simple", "inputs": pair()},
    ]
    async with served(models) as (_, client):
        piece, fell, unknown, added = await asked(client, *requests)

    assert piece[0].as_numpy("text_output").tolist() == [b"He"]
    assert fell[1].message() == "it fell"
    assert "unknown model" in unknown[1].message()
    assert added[0].as_numpy("OUTPUT1").tolist() == [[n - 1 for n in range(16)]]


async def test_requests_of_a_stream_are_worked_on_together_and_answered_in_turn():
    """The second request does not wait for the first to end, and its reply does."""
    gate = asyncio.Event()
    engine = FakeEngine((Text("He"), gate, Finish("stop")), concurrency=2)
    models = {"chat": (Task.CHAT, engine)} | sums()
    requests = [{"model_name": "chat", "inputs": said(text)} for text in ("a", "b")]
    async with served(models) as (_, client):
        call = asyncio.ensure_future(asked(client, *requests, {"model_name": "simple", "inputs": pair()}))
        await until(lambda: engine.backends and engine.backends[0].running == 2)
        gate.set()
        replies = [result.get_response().model_name for result, _ in await call]

    assert replies == ["chat", "chat", "simple"]


async def test_a_text_that_is_empty_is_one_empty_reply():
    """Who waits for a reply to each request gets one, though nothing was said."""
    async with served(chat(Finish("stop"))) as (_, client):
        ((reply, _),) = await asked(client, {"model_name": "chat", "inputs": said()})

    assert reply.as_numpy("text_output").tolist() == [b""]


async def test_a_client_that_leaves_cancels_its_share():
    """The model is told at once when nobody waits for its answer any more, streamed or not."""
    engine = FakeEngine((Text("He"), asyncio.Event(), Finish("stop")))
    async with served({"chat": (Task.CHAT, engine)}) as (_, client):
        call = asyncio.ensure_future(client.infer("chat", said()))
        await until(lambda: engine.backends and engine.backends[0].running)
        call.cancel()
        await until(lambda: not engine.backends[0].running)

        replies = client.stream_infer(each({"model_name": "chat", "inputs": said()}))
        await anext(aiter(replies))
        assert engine.backends[0].running
        replies.cancel()
        await until(lambda: not engine.backends[0].running)


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged above debug of calls."""
    ours = [record for record in caplog.records if record.name.startswith(("grpc", "gateway", "asyncio"))]
    return [record.getMessage() for record in ours if record.levelno > logging.DEBUG]


async def test_clients_that_leave_are_nothing_to_log(caplog):
    """Streams with much to say that are cancelled, half read or never, are the client's business alone."""
    engine = FakeEngine((*[Text("x" * 50_000)] * 300, Finish("stop")), concurrency=8)
    async with oip_house({"chat": (Task.CHAT, engine)}) as house, house.grpc() as address:
        for number in range(40):
            request = service_pb2.ModelInferRequest(model_name="chat")
            request.inputs.append(typed("BYTES", [1], bytes_contents=[b"%d" % number]).inputs[0])
            async with grpc.aio.insecure_channel(address) as channel:
                call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request] * 3))
                await (call.read() if number % 2 else call.initial_metadata())
                if number % 4:
                    call.cancel()
    assert loud(caplog) == []


async def test_what_the_library_says_of_clients_that_left_is_nothing_to_log(caplog):
    """That a reply found no reader any more is not logged; what else goes wrong in the library is."""
    async with oip_house(sums()) as house, house.grpc():
        library = logging.getLogger("grpc._cython.cygrpc")
        library.error("could not write", exc_info=grpc.aio.InternalError("Failed 'execute_batch'"))
        library.error("could not think", exc_info=RuntimeError("a defect"))
        library.error("could not begin")
    assert loud(caplog) == ["could not think", "could not begin"]


@pytest.mark.parametrize("method", ["inference.GRPCInferenceService/ModelInfer", "grpc.health.v1.Health/Check"])
async def test_bytes_that_are_no_message_are_refused(caplog, method):
    """What cannot be parsed is the client's mistake: it is told in words, and not logged."""
    async with oip_house(sums()) as house, house.grpc() as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{method}")(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "these 2 bytes are no message" in (caught.value.details() or "")
    assert loud(caplog) == []


async def test_bytes_that_are_no_message_are_refused_in_streams(caplog):
    """A watch of the health ends; a stream of questions has an error for these bytes and goes on to the next."""
    good = service_pb2.ModelInferRequest(model_name="nobody").SerializeToString()
    async with oip_house(sums()) as house, house.grpc() as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff").read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        replies = [reply.error_message async for reply in call(iter([b"\xff", good]))]
    assert replies[0] == "these 1 bytes are no message inference.ModelInferRequest"
    assert "unknown model" in replies[1]
    assert loud(caplog) == []


async def test_a_drain_lets_calls_end():
    """A call in progress ends as it should; then nobody answers."""
    gate = asyncio.Event()
    engine = FakeEngine((Text("He"), gate, Finish("stop")))
    async with oip_house({"chat": (Task.CHAT, engine)}) as house:
        server, address = await house.grpc_server()
        async with triton.InferenceServerClient(address) as client:
            call = asyncio.ensure_future(client.infer("chat", said()))
            await until(lambda: engine.backends and engine.backends[0].running)
            drain = asyncio.ensure_future(server.drain(10.0))
            await asyncio.sleep(0)
            gate.set()
            assert (await call).as_numpy("text_output").tolist() == [b"He"]
            await drain
            with pytest.raises(InferenceServerException) as caught:
                await client.is_server_live()
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


async def test_a_drain_does_not_wait_for_idle_streams():
    """A stream without a request in progress, and who watches the health, are let go at once."""
    forever = asyncio.Event()

    async def one_then_wait() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "simple", "inputs": pair()}
        await forever.wait()

    async with oip_house(sums()) as house:
        server, address = await house.grpc_server()
        async with triton.InferenceServerClient(address) as client, grpc.aio.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            replies = aiter(client.stream_infer(one_then_wait()))
            await anext(replies)
            async with asyncio.timeout(90):
                await server.drain(3600.0)
            assert [reply async for reply in replies] == []
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.code() is grpc.StatusCode.OK
