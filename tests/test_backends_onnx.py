"""The onnx engine over real worker processes: jobs share one socket, and faults stay where they happen."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator

import numpy as np
import psutil
import pytest
import pytest_asyncio

from backends import messages
from backends.contract import (
    AnsweringBackend,
    BackendError,
    BadJob,
    Finish,
    Job,
    Scores,
    Task,
    Text,
    Usage,
    Vectors,
    WorkerDied,
)
from backends.costs import ModelCosts
from backends.demand import Demand
from backends.forkserver.client import ForkServer
from backends.frames import Decoder, Frame
from backends.keeper import Keeper
from backends.onnx import OnnxEngine, OnnxReplica
from backends.pool import Pool, PoolLimits
from backends.tail import OutputTail
from tests import toys
from tests.onnx_house import ask, expected, read_on, said, started

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[ForkServer]:
    server = ForkServer(os.environ)
    yield server
    await server.close(10)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="chat_engine")
async def _chat_engine(server, tmp_path_factory) -> OnnxEngine:
    return await OnnxEngine.open(toys.decoder(tmp_path_factory.mktemp("decoder")), server, threads=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="long_engine")
async def _long_engine(server, tmp_path_factory) -> OnnxEngine:
    """Return a chat model that talks for about a second when asked toys.ENDLESS."""
    return await OnnxEngine.open(toys.decoder(tmp_path_factory.mktemp("long"), context=8192), server, threads=1)


@pytest_asyncio.fixture(loop_scope="module", name="chat")
async def _chat(chat_engine) -> AsyncIterator[OnnxReplica]:
    replica = await chat_engine.start()
    yield replica
    await replica.close()


async def test_embed(server, tmp_path):
    """An embed job gives normalised vectors in the order of its inputs, its usage, and one finish."""
    async with started(server, toys.embedder(tmp_path)) as replica:
        vectors, usage, finish = [
            event async for event in replica.stream(Job(Task.EMBED, inputs=("w1", (5,), "w2 w3")))
        ]

    assert isinstance(vectors, Vectors)
    matrix = np.frombuffer(vectors.data, "<f4").reshape(vectors.shape)
    assert vectors.shape == (3, 8)
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)
    assert np.allclose(matrix[0], matrix[1])
    assert (usage, finish) == (Usage(4), Finish("stop"))


async def test_predict(server, tmp_path):
    """A predict job gives a row of probabilities an input, and the labels that name them."""
    async with started(server, toys.classifier(tmp_path)) as replica:
        scores, *_ = [event async for event in replica.stream(Job(Task.PREDICT, inputs=("w1", "w2")))]

    assert isinstance(scores, Scores)
    assert (scores.shape, scores.labels) == ((2, 3), ("even", "odd", "none"))
    assert np.allclose(np.frombuffer(scores.data, "<f4").reshape(2, 3).sum(axis=1), 1, atol=1e-5)


async def test_what_makes_no_text_answers_in_one_piece(server, tmp_path):
    """An answer is what a stream of the same job tells, and what is wrong with a job is raised."""
    job = Job(Task.PREDICT, inputs=("w1", "w2"))
    async with started(server, toys.classifier(tmp_path)) as replica:
        assert list(await replica.answer(job)) == [event async for event in replica.stream(job)]
        with pytest.raises(BadJob):
            await replica.answer(Job(Task.PREDICT, inputs=("w1 " * 10_000,)))
        answering = asyncio.create_task(replica.answer(job))
        await asyncio.sleep(0)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        assert len(await replica.answer(job)) == 3


async def test_a_model_that_makes_text_is_streamed(chat):
    """When its first piece comes is learned, which a whole answer would not tell."""
    assert not isinstance(chat, AnsweringBackend)


async def test_chat_streams_tokens(chat):
    """A chat job gives a piece a token, then the usage, then the reason."""
    *pieces, usage, finish = [event async for event in chat.stream(ask("w9", max_tokens=5))]

    assert [type(piece) for piece in pieces] == [Text] * 5
    assert "".join(piece.text for piece in pieces) == " ".join(expected("w9").split()[:5])
    assert (usage, finish) == (Usage(3, 5), Finish("length"))


async def test_many_jobs_share_a_replica(chat):
    """More jobs at once than there are slots all get what they get alone."""
    texts = [f"w{number} w{number + 7}" for number in range(12)]

    assert await asyncio.gather(*(said(chat, ask(text)) for text in texts)) == [expected(text) for text in texts]


async def test_a_closed_stream_cancels_its_job(chat):
    """Closing a stream in the middle frees its slot and leaves the other jobs as they are."""
    streams = [chat.stream(ask("w9")) for _ in range(toys.MAX_BATCH)]
    for stream in streams:
        await anext(stream)
    for stream in streams:
        await stream.aclose()

    assert await said(chat, ask("w9 w9")) == expected("w9 w9")
    assert "0 jobs" in repr(chat)


async def test_a_cancelled_reader_cancels_its_job(chat):
    """Cancelling the task that reads a stream forgets the job; what the worker still sends for it goes nowhere."""
    reading = asyncio.create_task(said(chat, ask("w9")))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert await said(chat, ask("w3")) == expected("w3")


async def test_a_cancellation_reaches_the_model(server, long_engine):
    """Over the bare socket: with every slot cancelled, the next job is done and the cancelled ones never finish."""
    ours, theirs = socket.socketpair()
    output = await OutputTail.open()
    child = await server.spawn_worker(long_engine._spec, theirs, output.fd)
    theirs.close()
    decoder = Decoder()

    def until(kind, number) -> list[Frame]:
        seen = []
        while not any(frame.header["kind"] == kind and frame.header.get("id") == number for frame in seen):
            seen += decoder.feed(ours.recv(1 << 16))
        return seen

    with ours:
        await asyncio.to_thread(until, "ready", None)
        ours.sendall(
            b"".join(
                part for number in range(toys.MAX_BATCH) for part in messages.job_frame(number, ask(toys.ENDLESS), {})
            )
        )
        await asyncio.to_thread(until, "text", 0)
        ours.sendall(b"".join(messages.cancel_frame(number) for number in range(toys.MAX_BATCH)))
        ours.sendall(b"".join(messages.job_frame(99, ask("w9", max_tokens=2), {})))
        seen = await asyncio.to_thread(until, "finish", 99)

    assert [frame.header["id"] for frame in seen if frame.header["kind"] == "finish"] == [99]
    await child.wait()
    output.close()


@pytest.mark.parametrize(
    ("job", "param", "words"),
    [
        (Job(Task.EMBED, inputs=("w1",)), "model", "does not do embed; it does chat, completion"),
        (ask("w1 " * 40), "messages", "has 42 tokens; the model's context of 32"),
        (Job(Task.COMPLETION, prompt=(1, 99)), "prompt", "token id 99 is out of range"),
    ],
)
async def test_a_bad_job_reaches_its_caller(chat, job, param, words):
    """What the worker refuses comes back as BadJob with the client's field, and the worker serves on."""
    with pytest.raises(BadJob, match=words) as caught:
        await anext(chat.stream(job))

    assert caught.value.param == param
    assert await said(chat, ask("w3")) == expected("w3")


async def test_a_run_that_fails_is_an_error_of_its_job(server, tmp_path):
    """When the graph fails for a job, that job raises BackendError and the next is served."""
    async with started(server, toys.embedder(tmp_path, known=20)) as replica:
        with pytest.raises(BackendError, match="the model failed"):
            await anext(replica.stream(Job(Task.EMBED, inputs=("w60",))))
        assert isinstance(await anext(replica.stream(Job(Task.EMBED, inputs=("w1",)))), Vectors)


async def test_kill_9_of_a_worker_fails_its_jobs_alone(chat_engine, long_engine):
    """A worker that is killed mid-stream raises WorkerDied in its streams; another replica's go on."""
    victim, other = await asyncio.gather(long_engine.start(), chat_engine.start())
    stream, going_on = victim.stream(ask(toys.ENDLESS)), other.stream(ask("w9"))
    await anext(stream)
    first = await anext(going_on)
    os.kill(victim._child.pid, signal.SIGKILL)

    with pytest.raises(WorkerDied):
        await read_on(stream)
    assert first.text + "".join([each.text async for each in going_on if isinstance(each, Text)]) == expected("w9")
    assert await victim.wait_exit() == "the worker ended with status -9"
    with pytest.raises(WorkerDied):
        await anext(victim.stream(ask("w9")))
    await victim.close()
    await other.close()


async def test_kill_9_of_the_fork_server_fails_its_replicas(chat_engine, long_engine, server):
    """With the fork server its replicas end and say so; the next start brings both up again."""
    replica = await long_engine.start()
    stream = replica.stream(ask(toys.ENDLESS))
    await anext(stream)
    os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(WorkerDied):
        await read_on(stream)
    assert "status -9" in await replica.wait_exit()
    again = await chat_engine.start()
    assert await said(again, ask("w3")) == expected("w3")
    await again.close()
    await replica.close()


async def test_a_worker_that_hangs_is_lost(server, tmp_path):
    """A stopped worker fails its job after the silence, says why, and is gone; those who left do not hide it."""
    engine = await OnnxEngine.open(toys.decoder(tmp_path), server, threads=1, silence_s=0.2)
    replica, forgotten = await asyncio.gather(engine.start(), engine.start())
    for each in (replica, forgotten):
        assert await said(each, ask("w9")) == expected("w9")
        os.kill(each._child.pid, signal.SIGSTOP)
    left = asyncio.create_task(said(forgotten, ask("w9")))
    await asyncio.sleep(0)
    left.cancel()

    async with asyncio.timeout(90):
        with pytest.raises(WorkerDied, match=r"the worker hung: it gave no sign of life for 0\.2 s"):
            await said(replica, ask("w9"))
        for each in (replica, forgotten):
            words = "the worker hung: it gave no sign of life for 0.2 s; the worker ended with status -9"
            assert await each.wait_exit() == words
            await each.close()
    await asyncio.wait({left})


async def test_a_busy_worker_is_no_hung_one(server, tmp_path):
    """A worker that is asked between the tokens of a long answer goes on with it."""
    engine = await OnnxEngine.open(toys.decoder(tmp_path, context=2048), server, threads=1, silence_s=0.5)
    replica = await engine.start()
    replica._write([messages.ping_frame()])
    pieces = [event async for event in replica.stream(ask(toys.ENDLESS)) if isinstance(event, Text)]
    await replica.close()

    assert len(pieces) > 1000


async def test_a_hung_workers_job_runs_elsewhere(server, tmp_path):
    """Behind a pool the client of a stopped worker gets its answer from the next one."""
    engine = await OnnxEngine.open(toys.decoder(tmp_path), server, threads=1, silence_s=0.2)
    clock = asyncio.get_running_loop().time
    keeper = Keeper(None, clock)
    pool = Pool(
        "toy", engine, PoolLimits(), costs=ModelCosts(), demand=Demand(clock()), clock=clock, wake_keeper=keeper.wake
    )
    keeper.add(pool)
    keeper.start()
    await said(pool, ask("w9"))
    os.kill(pool.fleet.replicas[0].backend._child.pid, signal.SIGSTOP)

    async with asyncio.timeout(90):
        assert await said(pool, ask("w9")) == expected("w9")
    assert [replica.name for replica in pool.snapshot(clock()).replicas] == ["toy-2"]
    await keeper.close()


async def test_closing_fails_what_runs_and_ends_the_process(long_engine):
    """`close` fails running streams with WorkerDied, leaves no process, and may be called twice."""
    replica = await long_engine.start()
    stream = replica.stream(ask(toys.ENDLESS))
    await anext(stream)
    assert replica.peak_bytes() >= replica.memory_bytes() > 1_000_000
    await replica.close()
    await replica.close()

    with pytest.raises(WorkerDied):
        await read_on(stream)
    assert not psutil.pid_exists(replica._child.pid)
    assert (replica.memory_bytes(), replica.peak_bytes()) == (0, 0)


async def test_a_worker_that_breaks_the_protocol_is_ended(chat_engine):
    """A reply that is no frame fails the jobs and ends the worker."""
    replica = await chat_engine.start()
    replica.get_buffer(16)[:16] = b"\xff" * 16
    replica.buffer_updated(16)

    with pytest.raises(WorkerDied, match="no frame"):
        await anext(replica.stream(ask("w9")))
    assert "the worker ended" in await replica.wait_exit()
    await replica.close()


async def test_a_cancelled_start_leaves_no_worker(chat_engine, server):
    """Cancelling a start ends the worker that was being made."""
    await server.start()
    starting = asyncio.create_task(chat_engine.start())
    process = psutil.Process(server.pid)
    async with asyncio.timeout(90):
        while not process.children():  # noqa: ASYNC110  # a foreign process raises no event here
            await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    async with asyncio.timeout(90):
        while process.children():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_an_engine_says_what_it_serves(chat_engine):
    """A chat model completes prompts too, has its context's size, and takes as many jobs at a time as it has slots."""
    assert chat_engine.tasks == {Task.CHAT, Task.COMPLETION}
    assert (chat_engine.concurrency, chat_engine.max_tokens) == (toys.MAX_BATCH, toys.CONTEXT)
