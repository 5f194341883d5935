"""The calls of `GRPCInferenceService`, those that tell of models and change them among them.

Knows no server; what answers may change between two calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from gateway.catalog import ModelInfo
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.errors import ModelNotAllowed, Unsupported
from gateway.request import Caller
from gateway.surfaces.oip import control, descriptions
from gateway.surfaces.oip.calls import Context, code, metadata, peer, told
from gateway.surfaces.oip.inference import Inference, Serving
from gateway.surfaces.oip.proto import inference_pb2 as pb
from gateway.surfaces.oip.questions import known

Unary = Callable[[Any, Context], Awaitable[Message]]
Answering = Callable[[Any, Caller], Awaitable[Message]]


class InferenceService:
    """All that the service does; `draining` is set when it takes no more requests."""

    def __init__(self, serving: Callable[[], Serving], statistics: ModelStatistics, telemetry: Telemetry) -> None:
        self._serving = serving
        self._statistics = statistics
        self.draining = asyncio.Event()
        self._inference = Inference(serving, telemetry, self.draining)

    def ready(self) -> bool:
        """Tell whether the server takes requests and has all models up that it promises."""
        return not self.draining.is_set() and not self._serving().catalog.missing()

    def calls(self) -> dict[str, Callable[..., Any]]:
        """Return the calls by their names."""
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
        asking: dict[str, Callable[..., Any]] = {
            "ModelInfer": self._inference.infer,
            "ModelStreamInfer": self._inference.stream,
        }
        return asking | {name: guarded(call) for name, call in calls.items()}

    def _identified(self, answer: Answering) -> Unary:
        async def call(request: Message, context: Context) -> Message:
            return await answer(request, self._caller(context))

        return call

    def _caller(self, context: Context) -> Caller:
        return self._serving().gatekeeper.identify(metadata(context), peer(context))

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
        await control.load(self._serving().catalog, request.model_name, caller, request.parameters)
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: pb.RepositoryModelUnloadRequest, caller: Caller) -> Message:
        control.unload(self._serving().catalog, request.model_name, caller)
        return pb.RepositoryModelUnloadResponse()

    def _known(
        self, request: pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest, caller: Caller
    ) -> ModelInfo:
        info = known(self._serving().catalog.find, request.name, request.version)
        if not caller.may_call(info.name):
            raise ModelNotAllowed(f"this key may not call '{info.name}'", "model")
        return info


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
