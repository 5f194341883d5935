"""Makes a worker's devices ready before it has a model: the provider's libraries, its context, its handles."""

import os
import time

import numpy as np
import onnxruntime as ort

from backends.devices.gpus import environment_for
from backends.worker.model import session_options

# One number in, the same number out (ONNX: one Identity, opset 13): making the session of it is all that is wanted.
_IDENTITY = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def see(devices: tuple[int, ...]) -> None:
    """Have this process see these GPUs and no others; the driver reads it when a session first touches a device."""
    if devices:
        os.environ.update(environment_for(devices))


def touch(providers: tuple[str, ...]) -> tuple[ort.InferenceSession, float]:
    """Run something on the device; return the session, which holds it open, and the seconds that it took."""
    began = time.perf_counter()
    session = ort.InferenceSession(_IDENTITY, session_options(1), providers=list(providers))
    session.run(None, {"x": np.zeros(1, np.float32)})
    return session, time.perf_counter() - began
