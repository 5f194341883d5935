"""The calls of `GRPCInferenceService`: each is read, asked of the pipeline or the catalog, and answered.

Knows no server; what answers may change between two calls.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from backends.contract import Task, Text
from gateway import cache_control
from gateway.auth import Gatekeeper
from gateway.catalog import Catalog, ModelInfo
from gateway.errors import Fault, Forbidden, Unsupported
from gateway.model_statistics import ModelStatistics
from gateway.pipeline import Outcome, Pipeline
from gateway.request import Caller
from gateway.surfaces.oip import descriptions
from gateway.surfaces.oip.answers import TEXT_OUTPUT
from gateway.surfaces.oip.calls import Context, code, metadata, peer, remaining_s, told
from gateway.surfaces.oip.control import check_may_change, check_no_override
from gateway.surfaces.oip.messages import question_of, response, response_of
from gateway.surfaces.oip.proto import inference_pb2 as pb
from gateway.surfaces.oip.questions import Question, known, to_request
from gateway.surfaces.oip.tensors import text_tensor
from gateway.telemetry import Telemetry

Unary = Callable[[Any, Context], Awaitable[Message]]
Answering = Callable[[Any, Caller], Awaitable[Message]]

_R = TypeVar("_R")

_SURFACE = "grpc"
_OK = 200
_EMPTY_FINAL = "triton_enable_empty_final_response"
_TEXTS = (Task.CHAT, Task.COMPLETION)
# Requests of one stream that are worked on together; those after them wait in the client's hands.
_AT_A_TIME = 16


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers now: the parts of one generation."""

    pipeline: Pipeline
    gatekeeper: Gatekeeper
    catalog: Catalog


class InferenceService:
    """The calls by their names."""

    def __init__(self, serving: Callable[[], Serving], statistics: ModelStatistics, telemetry: Telemetry) -> None:
        self._serving = serving
        self._statistics = statistics
        self._telemetry = telemetry
        self.draining = asyncio.Event()

    def ready(self) -> bool:
        """Tell whether the server takes requests and has all models up that it promises."""
        return not self.draining.is_set() and self._serving().catalog.ready

    def unary(self) -> dict[str, Unary]:
        """Return the calls of one request and one reply."""
        calls: dict[str, Unary] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
        }
        identified: Mapping[str, Answering] = {
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": _says(pb.SystemSharedMemoryStatusResponse()),
            "SystemSharedMemoryRegister": _refuses("this server shares no memory with its clients"),
            "SystemSharedMemoryUnregister": _says(pb.SystemSharedMemoryUnregisterResponse()),
            "CudaSharedMemoryStatus": _says(pb.CudaSharedMemoryStatusResponse()),
            "CudaSharedMemoryRegister": _refuses("this server shares no memory with its clients"),
            "CudaSharedMemoryUnregister": _says(pb.CudaSharedMemoryUnregisterResponse()),
            "TraceSetting": _settings(pb.TraceSettingResponse()),
            "LogSettings": _settings(pb.LogSettingsResponse()),
        }
        calls |= {name: self._identified(answer) for name, answer in identified.items()}
        return {name: guarded(call) for name, call in calls.items()} | {"ModelInfer": self._infer}

    async def stream(self, requests: AsyncIterator[pb.ModelInferRequest], context: Context) -> None:
        """Answer requests, several at a time, in the order in which they came. Errors are replies too."""
        draining = asyncio.ensure_future(self.draining.wait())
        room = asyncio.Semaphore(_AT_A_TIME)
        turn = asyncio.Event()
        turn.set()
        try:
            async with asyncio.TaskGroup() as answers:
                while (request := await _next(aiter(requests), draining)) is not None:
                    await room.acquire()
                    done = asyncio.Event()
                    answers.create_task(self._reply(request, context, turn, done)).add_done_callback(
                        lambda _: room.release()
                    )
                    turn = done
        finally:
            draining.cancel()

    async def _reply(
        self, request: pb.ModelInferRequest, context: Context, turn: asyncio.Event, done: asyncio.Event
    ) -> None:
        """Answer one request of a stream when it is its turn: a text in pieces, everything else in one reply."""
        async with aclosing(self._pieces(request, context)) as pieces:
            async for piece in pieces:
                await turn.wait()
                await context.write(piece)
        await turn.wait()
        done.set()

    def _identified(self, answer: Answering) -> Unary:
        async def call(request: Message, context: Context) -> Message:
            return await answer(request, self._caller(context))

        return call

    def _caller(self, context: Context) -> Caller:
        return self._serving().gatekeeper.identify(metadata(context), peer(context))

    async def _infer(self, request: pb.ModelInferRequest, context: Context) -> Message:
        counted = _Counted(self._telemetry)
        try:
            pipeline = self._serving().pipeline
            question, outcome, _ = await self._ask(pipeline, request, context, streamed=False)
            outcome = await pipeline.collect(outcome)
            assert outcome.answer is not None
            made = response_of(question, outcome.answer)
        except Exception as error:  # noqa: BLE001 - as in `guarded`
            trouble = counted.failed(error)
            await context.abort(code(trouble), trouble.message)
        counted.done(outcome)
        context.set_trailing_metadata((("cache-status", outcome.status.header()),))
        return made

    async def _pieces(
        self, request: pb.ModelInferRequest, context: Context
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        counted = _Counted(self._telemetry)
        try:
            pipeline = self._serving().pipeline
            question, outcome, task = await self._ask(pipeline, request, context, streamed=True)
            if task in _TEXTS:
                async with aclosing(_texts(pipeline, question, outcome)) as pieces:
                    async for piece in pieces:
                        yield pb.ModelStreamInferResponse(infer_response=piece)
            else:
                outcome = await pipeline.collect(outcome)
                assert outcome.answer is not None
                whole = response_of(question, outcome.answer)
                whole.parameters["triton_final_response"].bool_param = True
                yield pb.ModelStreamInferResponse(infer_response=whole)
            counted.done(outcome)
        except Exception as error:  # noqa: BLE001 - the stream goes on: what went wrong is the reply to this request
            whose = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            yield pb.ModelStreamInferResponse(error_message=counted.failed(error).message, infer_response=whose)

    async def _ask(
        self, pipeline: Pipeline, request: pb.ModelInferRequest, context: Context, *, streamed: bool
    ) -> tuple[Question, Outcome, Task]:
        headers = metadata(context)
        caller = self._serving().gatekeeper.identify(headers, peer(context))
        info = known(self._serving().catalog.find, request.model_name, request.model_version)
        question = question_of(request, info)
        asked = to_request(question, info, streamed=streamed)
        directives = cache_control.parse(headers.get("cache-control"))
        return question, await pipeline.answer(asked, caller, directives, remaining_s(context)), info.task

    async def _server_live(self, request: pb.ServerLiveRequest, context: Context) -> Message:
        del request, context
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: pb.ServerReadyRequest, context: Context) -> Message:
        del request, context
        return pb.ServerReadyResponse(ready=self.ready())

    async def _model_ready(self, request: pb.ModelReadyRequest, caller: Caller) -> Message:
        catalog = self._serving().catalog
        info = catalog.find(request.name)
        asked = info is not None and info.has_version(request.version) and caller.may_call(request.name)
        return pb.ModelReadyResponse(ready=asked and catalog.state(request.name).ready)

    async def _server_metadata(self, request: pb.ServerMetadataRequest, caller: Caller) -> Message:
        del request, caller
        return pb.ServerMetadataResponse(**descriptions.server(version("warmgate")))

    async def _model_metadata(self, request: pb.ModelMetadataRequest, caller: Caller) -> Message:
        return ParseDict(descriptions.model(self._known(request, caller)), pb.ModelMetadataResponse())

    async def _model_config(self, request: pb.ModelConfigRequest, caller: Caller) -> Message:
        config = descriptions.config(self._known(request, caller))
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    async def _model_statistics(self, request: pb.ModelStatisticsRequest, caller: Caller) -> Message:
        if request.name:
            names = [self._known(request, caller).name]
        else:
            names = [info.name for info, _ in self._serving().catalog.index() if caller.may_call(info.name)]
        stats = [descriptions.statistics(name, self._statistics.of(name)) for name in names]
        return ParseDict({"model_stats": stats}, pb.ModelStatisticsResponse())

    async def _index(self, request: pb.RepositoryIndexRequest, caller: Caller) -> Message:
        models = [entry for entry in self._serving().catalog.index() if caller.may_call(entry[0].name)]
        return ParseDict({"models": descriptions.index(models, ready=request.ready)}, pb.RepositoryIndexResponse())

    async def _load(self, request: pb.RepositoryModelLoadRequest, caller: Caller) -> Message:
        check_may_change(caller)
        check_no_override(request.model_name, request.parameters)
        await self._serving().catalog.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: pb.RepositoryModelUnloadRequest, caller: Caller) -> Message:
        check_may_change(caller)
        self._serving().catalog.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _known(
        self, request: pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest, caller: Caller
    ) -> ModelInfo:
        info = known(self._serving().catalog.find, request.name, request.version)
        if not caller.may_call(info.name):
            raise Forbidden(f"this key may not call '{info.name}'", "model")
        return info


async def _next(requests: AsyncIterator[_R], over: "asyncio.Future[Any]") -> _R | None:
    """Return a stream's next request; None at its end, or where it is `over` before one came."""
    reading = asyncio.ensure_future(anext(requests, None))
    try:
        await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()


class _Counted:
    """One request's entry in the metrics."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._since_s = time.perf_counter()

    def done(self, outcome: Outcome) -> None:
        self._count(outcome.head.model, _OK, outcome.status.label())

    def failed(self, error: Exception) -> Fault:
        """Count it, and return what to tell of it."""
        trouble = told(error)
        self._count("", trouble.status, "none")
        return trouble

    def _count(self, model: str, status: int, label: str) -> None:
        self._telemetry.answered(_SURFACE, model, status, label, time.perf_counter() - self._since_s)


async def _texts(
    pipeline: Pipeline, question: Question, outcome: Outcome
) -> AsyncGenerator[pb.ModelInferResponse, None]:
    """Make a reply of each piece of the first choice's text; one that is empty where there is no text at all."""
    said = False
    async with aclosing(pipeline.events(outcome)) as events:
        async for event in events:
            if type(event) is Text and not event.index:
                said = True
                yield response(question, (text_tensor(TEXT_OUTPUT, [event.text]),), final=False)
    if not said:
        yield response(question, (text_tensor(TEXT_OUTPUT, [""]),), final=False)
    if question.parameters.get(_EMPTY_FINAL) is True:
        yield response(question, (), final=True)


def guarded(call: Unary) -> Unary:
    """Tell of errors as gRPC does."""

    async def answer(request: Message, context: Context) -> Message:
        try:
            return await call(request, context)
        except Exception as error:  # noqa: BLE001 - the last line: whatever went wrong becomes one clear status
            trouble = told(error)
            await context.abort(code(trouble), trouble.message)

    return answer


def _says(reply: Message) -> Answering:
    async def answer(request: Message, caller: Caller) -> Message:
        del request, caller
        return reply

    return answer


def _refuses(why: str) -> Answering:
    async def answer(request: Message, caller: Caller) -> Message:
        del request, caller
        raise Unsupported(why)

    return answer


def _settings(reply: Message) -> Answering:
    async def answer(request: Any, caller: Caller) -> Message:
        del caller
        if request.settings:
            raise Unsupported("nothing can be set here: the configuration file says it")
        return reply

    return answer
