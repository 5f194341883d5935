"""The onnx engine with models of tensors: real workers, what they declare, what they refuse, and large tensors."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from backends.contract import (
    BackendError,
    BadJob,
    Finish,
    Job,
    Sampling,
    StartFailed,
    Task,
    Tensor,
    Tensors,
    TensorSpec,
    Usage,
)
from backends.forkserver.client import ForkServer
from backends.onnx import OnnxEngine
from backends.tensors import pack_elements
from tests import toys
from tests.onnx_house import started

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[ForkServer]:
    server = ForkServer(os.environ)
    yield server
    await server.close(10)


def job(*tensors: Tensor, outputs=()) -> Job:
    """Make an infer job."""
    return Job(Task.INFER, tensors=tensors, outputs=outputs)


def pair(number) -> Job:
    """Make a job for `simple`: a row of `number` and one of ones."""
    rows = [np.full((1, 16), each, np.int32) for each in (number, 1)]
    return job(*(Tensor(f"INPUT{place}", "INT32", (1, 16), row.tobytes()) for place, row in enumerate(rows)))


async def answer(replica, asked) -> tuple[Tensor, ...]:
    """Return the outputs of an infer job, whose stream is them and a finish."""
    tensors, finish = [event async for event in replica.stream(asked)]
    assert isinstance(tensors, Tensors)
    assert finish == Finish("stop")
    return tensors.outputs


async def test_an_engine_declares_its_tensors(server, tmp_path):
    """Inputs, outputs and the size of a batch are known before a worker runs; without a batch jobs run one by one."""
    simple = await OnnxEngine.open(toys.simple(tmp_path / "simple"), server, threads=1)
    alone = await OnnxEngine.open(toys.nan_inf(tmp_path / "nan"), server, threads=1)

    assert simple.inputs == tuple(TensorSpec(f"INPUT{place}", "INT32", (-1, 16)) for place in range(2))
    assert [spec.name for spec in simple.outputs] == ["OUTPUT0", "OUTPUT1"]
    assert (simple.max_batch, simple.concurrency, simple.tasks) == (8, 8, {Task.INFER})
    assert (alone.max_batch, alone.concurrency) == (0, 1)


@pytest.mark.parametrize(
    ("make", "takes", "gives"),
    [
        (toys.embedder, [("text", "BYTES", (-1,))], [("embedding", "FP32", (-1, -1))]),
        (toys.classifier, [("text", "BYTES", (-1,))], [("label", "BYTES", (-1,)), ("probabilities", "FP32", (-1, 3))]),
        (toys.decoder, [("text_input", "BYTES", (1,))], [("text_output", "BYTES", (1,))]),
    ],
)
async def test_a_model_of_texts_looks_like_one_of_tensors(server, tmp_path, make, takes, gives):
    """A client that knows only tensors sees texts in, and vectors, labels with probabilities, or text out."""
    engine = await OnnxEngine.open(make(tmp_path), server, threads=1)

    assert engine.inputs == tuple(TensorSpec(*each) for each in takes)
    assert engine.outputs == tuple(TensorSpec(*each) for each in gives)


async def test_jobs_at_once_get_what_is_theirs(server, tmp_path):
    """Many jobs over one socket each get their own sums."""
    async with started(server, toys.simple(tmp_path)) as replica:
        found = await asyncio.gather(*(answer(replica, pair(number)) for number in range(40)))

    for number, (total, difference) in enumerate(found):
        assert np.frombuffer(total.data, np.int32).tolist() == [number + 1] * 16
        assert np.frombuffer(difference.data, np.int32).tolist() == [number - 1] * 16


@pytest.mark.parametrize("make", toys.TENSOR_MODELS.values())
async def test_every_toy_starts(server, tmp_path, make):
    """A model of each datatype comes up, and says what it could not be tried on."""
    async with started(server, make(tmp_path)) as replica:
        assert replica.providers == ("CPUExecutionProvider",)


async def test_a_doubt_is_logged_and_the_model_serves(server, tmp_path, caplog):
    """Where the first inference fails for the values made up for it, the replica is ready all the same."""
    with caplog.at_level(logging.WARNING, "backends.onnx"):
        async with started(server, toys.simple_string(tmp_path)) as replica:
            data = pack_elements([b"20"] * 16)
            total, _ = await answer(replica, job(*(Tensor(f"INPUT{n}", "BYTES", (1, 16), data) for n in range(2))))

    assert total.data == pack_elements([b"40"] * 16)
    assert "serves, though the first inference, on zeros and empty texts, failed" in caplog.text


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        (job(Tensor("X", "INT32", (1, 16), bytes(64))), "inputs", "unexpected inference input 'X'"),
        (Job(Task.INFER, tensors=pair(1).tensors, outputs=("Y",)), "outputs", "output 'Y'"),
        (Job(Task.INFER, tensors=pair(1).tensors, extra={"priority": 1}), "priority", "cannot honour 'priority'"),
        (Job(Task.CHAT), "model", "does not do chat; it does infer"),
    ],
)
async def test_a_bad_job_reaches_its_caller(server, tmp_path, asked, param, words):
    """What is not the model's raises BadJob with the client's field, and the worker serves on."""
    async with started(server, toys.simple(tmp_path)) as replica:
        with pytest.raises(BadJob, match=words) as caught:
            await anext(replica.stream(asked))
        assert caught.value.param == param
        assert len(await answer(replica, pair(3))) == 2


async def test_bad_elements_come_back_from_the_worker(server, tmp_path):
    """What only the worker looks at, the elements of BYTES, raises BadJob all the same."""
    async with started(server, toys.simple_identity(tmp_path)) as replica:
        with pytest.raises(BadJob, match="expecting string of length 9 but only 1 bytes"):
            await anext(replica.stream(job(Tensor("INPUT0", "BYTES", (1, 1), b"\x09\x00\x00\x00a"))))


async def test_the_largest_body_fits(server, tmp_path):
    """64 MiB of one tensor go to a worker and come back as they were."""
    data = np.random.default_rng(1).bytes(64 << 20)
    async with started(server, toys.identity_fp32(tmp_path)) as replica:
        [output] = await answer(replica, job(Tensor("INPUT0", "FP32", (1, 16 << 20), data)))

    assert output.shape == (1, 16 << 20)
    assert output.data == data


async def test_what_no_frame_holds_is_refused(server, tmp_path):
    """A tensor beyond the frame's limit raises BadJob before a byte is sent."""
    async with started(server, toys.identity(tmp_path, "UINT8", (-1, -1))) as replica:
        with pytest.raises(BadJob, match="too large for a worker: arrays of 268435457 bytes"):
            await anext(replica.stream(job(Tensor("INPUT0", "UINT8", (1, (256 << 20) + 1), bytes((256 << 20) + 1)))))


async def test_an_answer_that_no_frame_holds_is_an_error_of_its_job(server, tmp_path):
    """An output beyond the limit fails its job, and the worker serves on."""
    async with started(server, toys.zeros(tmp_path)) as replica:
        with pytest.raises(BackendError, match="the answer is too large: arrays of 300000000 bytes"):
            await anext(replica.stream(job(Tensor("INPUT0", "INT64", (1,), np.int64(300_000_000).tobytes()))))
        [output] = await answer(replica, job(Tensor("INPUT0", "INT64", (1,), np.int64(3).tobytes())))
    assert output.data == bytes(3)


async def test_a_declaration_that_lies_fails_the_start(server, tmp_path):
    """A model.yaml that the graph contradicts raises StartFailed that names tensor, finding and what is allowed."""
    file = toys.simple(tmp_path) / "model.yaml"
    file.write_text(file.read_text().replace("OUTPUT1: {datatype: INT32", "OUTPUT1: {datatype: FP32"))
    engine = await OnnxEngine.open(tmp_path, server, threads=1)

    with pytest.raises(StartFailed, match="outputs: OUTPUT1: datatype: FP32; the graph's is INT32"):
        await engine.start()


async def test_the_version_follows_graph_and_declaration(server, tmp_path):
    """The version is a digest over model.yaml and model.onnx, and no tokenizer is asked for."""
    first = (await OnnxEngine.open(toys.simple(tmp_path), server, threads=1)).version
    (tmp_path / "model.yaml").write_text((tmp_path / "model.yaml").read_text() + "# new\n")
    second = (await OnnxEngine.open(tmp_path, server, threads=1)).version

    assert first != second


async def test_choices_through_a_worker(server, tmp_path):
    """Two choices with log probabilities come over the socket as events of each, one usage, and two finishes."""
    asked = Job(
        Task.COMPLETION,
        prompt="w5 w6",
        sampling=Sampling(max_tokens=2),
        extra={"n": 2, "logprobs": 1, "tool_choice": "none"},
    )
    async with started(server, toys.decoder(tmp_path)) as replica:
        *pieces, usage, first, second = [event async for event in replica.stream(asked)]

    assert (usage, first, second) == (Usage(2, 4), Finish("length", 0), Finish("length", 1))
    assert [(type(event).__name__, event.index) for event in pieces] == [
        (name, index) for _ in range(2) for index in range(2) for name in ("Text", "Logprobs")
    ]
