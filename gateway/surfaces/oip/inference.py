"""`ModelInfer` and `ModelStreamInfer`: what is asked of models over gRPC, and their answers. Knows no server."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from backends.contract import BackendError, Task, Text
from gateway.caching import cache_control
from gateway.callers.auth import Gatekeeper
from gateway.catalog import Catalog
from gateway.counting.telemetry import Telemetry
from gateway.errors import Fault
from gateway.pipeline import Pipeline
from gateway.query import Outcome
from gateway.surfaces.oip.answers import TEXT_OUTPUT
from gateway.surfaces.oip.calls import Context, code, metadata, peer, read, remaining_s, told
from gateway.surfaces.oip.messages import FINAL, question_of, response, response_of
from gateway.surfaces.oip.proto import inference_pb2 as pb
from gateway.surfaces.oip.questions import Question, known, to_request
from gateway.surfaces.oip.tensors import text_tensor

_R = TypeVar("_R")
_log = logging.getLogger(__name__)

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


class Inference:
    """The two calls that ask models. `draining` ends streams that wait for their next request."""

    def __init__(self, serving: Callable[[], Serving], telemetry: Telemetry, draining: asyncio.Event) -> None:
        self._serving = serving
        self._telemetry = telemetry
        self._draining = draining

    async def infer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Answer one request as a whole."""
        counted = _Counted(self._telemetry)
        counted.request_id = request.id
        try:
            pipeline = self._serving().pipeline
            question, outcome, _ = await self._ask(pipeline, request, context, streamed=False)
            outcome = await pipeline.collect(outcome)
            assert outcome.answer is not None
            made = response_of(question, outcome.answer)
        except Exception as error:  # noqa: BLE001 - whatever went wrong becomes one clear status
            trouble = counted.failed(error)
            await context.abort(code(trouble), trouble.message)
        counted.done(outcome)
        context.set_trailing_metadata((("cache-status", outcome.status.header()),))
        return made

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer requests, several at a time, in the order in which they came. Errors are replies too."""
        try:
            await self._answer_each(requests, context)
        except* _ClientLeftError:
            _log.debug("the client of a stream left before its replies were written")

    async def _answer_each(self, requests: AsyncIterator[bytes], context: Context) -> None:
        draining = asyncio.ensure_future(self._draining.wait())
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

    async def _reply(self, request: bytes, context: Context, turn: asyncio.Event, done: asyncio.Event) -> None:
        """Answer one request of a stream when it is its turn: a text in pieces, everything else in one reply."""
        async with aclosing(self._pieces(request, context)) as pieces:
            async for piece in pieces:
                await turn.wait()
                await _write(context, piece)
        await turn.wait()
        done.set()

    async def _pieces(self, data: bytes, context: Context) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        counted = _Counted(self._telemetry)
        request = pb.ModelInferRequest()
        try:
            request = read(pb.ModelInferRequest, data)
            counted.request_id = request.id
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
                whole.parameters[FINAL].bool_param = True
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
        directives = cache_control.read(headers)
        return question, await pipeline.answer(asked, caller, directives, remaining_s(context)), info.task


class _ClientLeftError(Exception):
    """Nobody reads what is written."""


async def _write(context: Context, piece: pb.ModelStreamInferResponse) -> None:
    try:
        await context.write(piece)
    except grpc.aio.BaseError as error:
        raise _ClientLeftError from error


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
        self.request_id = ""
        """What the client calls it, once that was read."""

    def done(self, outcome: Outcome) -> None:
        self._count(outcome.head.model, _OK, outcome.status.label())

    def failed(self, error: Exception) -> Fault:
        """Count it, and return what to tell of it."""
        trouble = told(error, self.request_id)
        self._count(error.model if isinstance(error, BackendError) else "", trouble.status, "none")
        took_s = time.perf_counter() - self._since_s
        self._telemetry.access.note("", total_s=took_s, cache="none", status=trouble.status)
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
