"""Models, their configuration and their statistics as the protocol describes them, as plain values for both transports.

The names of the fields are the same in JSON and in the messages of gRPC.
"""

from collections.abc import Sequence
from typing import Any

from backends.contract import Task, TensorSpec
from gateway.catalog import VERSION, ModelInfo, Standing
from gateway.counting.model_statistics import Duration, Executions, OfModel

SERVER_NAME = "warmgate"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)


def server(version: str) -> dict[str, Any]:
    """Describe the server."""
    return {"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)}


def model(info: ModelInfo) -> dict[str, Any]:
    """Describe a model."""
    return {
        "name": info.name,
        "versions": [VERSION],
        "platform": info.platform,
        "inputs": [_tensor(spec) for spec in info.inputs],
        "outputs": [_tensor(spec) for spec in info.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def config(info: ModelInfo) -> dict[str, Any]:
    """Describe a model's configuration; the sizes of a model with a batch are told without it.

    Decoupled is what gives a reply for each piece of a text, where the client reads a stream.
    """
    batched = info.max_batch > 0
    described: dict[str, Any] = {
        "name": info.name,
        "platform": info.platform,
        "backend": "onnxruntime" if info.platform else "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": info.max_batch,
        "input": [
            {
                **_config_tensor(spec, batched=batched),
                "format": "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": False,
                "is_shape_tensor": False,
            }
            for spec in info.inputs
        ],
        "output": [{**_config_tensor(spec, batched=batched), "is_shape_tensor": False} for spec in info.outputs],
        "instance_group": [],
        "default_model_filename": "model.onnx" if info.platform else "",
        "parameters": {"engine_version": {"string_value": info.engine_version}},
        "model_transaction_policy": {"decoupled": info.task in (Task.CHAT, Task.COMPLETION)},
        "response_cache": {"enable": info.cached},
    }
    if batched:
        described["dynamic_batching"] = {"preferred_batch_size": [info.max_batch], "max_queue_delay_microseconds": 0}
    return described


def _config_tensor(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape[1:] if batched else spec.shape)}


def statistics(name: str, sums: OfModel) -> dict[str, Any]:
    """Describe what a model has done; clients read every one of these fields."""
    stats = {
        "success": sums.success,
        "fail": sums.fail,
        "queue": sums.queue,
        # Inputs are handed over as they came: nothing of it is measured apart.
        "compute_input": Duration(sums.compute_infer.count),
        "compute_infer": sums.compute_infer,
        "compute_output": sums.compute_output,
        "cache_hit": sums.cache_hit,
        "cache_miss": sums.cache_miss,
    }
    return {
        "name": name,
        "version": VERSION,
        "last_inference": sums.last_inference,
        "inference_count": sums.inference_count,
        "execution_count": sums.execution_count,
        "inference_stats": {kind: _duration(duration) for kind, duration in stats.items()},
        "batch_stats": [_batch(rows, batch) for rows, batch in sorted(sums.batches.items())],
    }


def _batch(rows: int, batch: Executions) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "compute_input": _duration(Duration(batch.compute_infer.count)),
        "compute_infer": _duration(batch.compute_infer),
        "compute_output": _duration(batch.compute_output),
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def index(models: Sequence[tuple[ModelInfo, Standing]], *, ready: bool) -> list[dict[str, str]]:
    """List the models, or only those that are ready."""
    return [
        {"name": info.name, "version": VERSION, "state": standing.state, "reason": standing.reason}
        for info, standing in models
        if standing.ready or not ready
    ]
