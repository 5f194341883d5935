"""Infer jobs: whatever shares a batch, each gets its own rows and its own outputs, and no failure spreads."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from backends.contract import BadJob, Job, Task, Tensor
from backends.frames import Decoder
from backends.manifest import ManifestError
from backends.messages import read_events
from backends.tensors import pack_elements, unpack_elements
from backends.worker import model
from backends.worker.tensors import TensorRunner, gather
from tests import toys

DTYPES = {"INT32": np.int32, "INT8": np.int8, "FP32": np.float32, "FP16": np.float16, "BOOL": np.bool_}


def load(directory) -> TensorRunner:
    """Make a runner of a toy model."""
    return TensorRunner(model.load(toys.spec(directory)))


@pytest.fixture(scope="module", name="simple")
def _simple(tmp_path_factory) -> TensorRunner:
    return load(toys.simple(tmp_path_factory.mktemp("simple")))


def pair(first, second, outputs=()) -> Job:
    """Make a job for `simple`."""
    arrays = [np.asarray(each, np.int32) for each in (first, second)]
    tensors = tuple(
        Tensor(f"INPUT{place}", "INT32", array.shape, array.tobytes()) for place, array in enumerate(arrays)
    )
    return Job(Task.INFER, tensors=tensors, outputs=outputs)


def one(datatype, shape, data, outputs=()) -> Job:
    """Make a job of INPUT0 alone."""
    return Job(Task.INFER, tensors=(Tensor("INPUT0", datatype, tuple(shape), data),), outputs=outputs)


def finish(runner, *jobs: Job) -> dict[int, Mapping[str, Tensor] | str]:
    """Run jobs, numbered from 0, to their end; return outputs by name, or messages of failures."""
    for number, job in enumerate(jobs):
        runner.add(number, job)
    found: dict[int, Mapping[str, Tensor] | str] = {}
    while runner.busy:
        for frame in Decoder().feed(b"".join(runner.step())):
            number = frame.header["id"]
            assert number not in found
            if frame.header["kind"] == "error":
                found[number] = frame.header["message"]
            else:
                tensors, _ = read_events(frame, ())
                found[number] = {each.name: each for each in tensors.outputs}
    return found


def numbers(tensor) -> list:
    """Return a tensor as nested lists."""
    return np.frombuffer(tensor.data, DTYPES[tensor.datatype]).reshape(tensor.shape).tolist()


def test_sums_and_differences(simple):
    """`simple` adds and subtracts, and names datatype and shape of what it gives."""
    [found] = finish(simple, pair([range(16)], [[1] * 16])).values()

    assert numbers(found["OUTPUT0"]) == [[n + 1 for n in range(16)]]
    assert numbers(found["OUTPUT1"]) == [[n - 1 for n in range(16)]]


_row = st.lists(st.integers(-(2**20), 2**20), min_size=16, max_size=16)
_job = st.tuples(
    st.integers(1, 8).flatmap(lambda rows: st.tuples(*[st.lists(_row, min_size=rows, max_size=rows)] * 2)),
    st.sampled_from([(), ("OUTPUT0",), ("OUTPUT1",), ("OUTPUT1", "OUTPUT0")]),
)


@settings(max_examples=30)
@given(st.lists(_job, max_size=6))
def test_rows_are_the_same_in_any_company(simple, jobs):
    """Jobs that run together get exactly the outputs that they asked for, in that order, as each gets them alone."""
    made = [pair(*inputs, outputs=outputs) for inputs, outputs in jobs]
    together = finish(simple, *made)

    for number, job in enumerate(made):
        assert together[number] == finish(simple, job)[0]
        assert list(together[number]) == list(job.outputs or ("OUTPUT0", "OUTPUT1"))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 8)), min_size=1, max_size=12))
def test_a_batch_takes_what_fits_from_the_oldest_on(waiting):
    """The oldest runs, with every later one of the same sizes that still has room."""
    chosen = gather(waiting, 8)
    rows = sum(waiting[place][1] for place in chosen)

    assert chosen[0] == 0
    assert rows <= 8
    assert {waiting[place][0] for place in chosen} == {waiting[0][0]}
    left = [n for place, (key, n) in enumerate(waiting) if place not in chosen and key == waiting[0][0]]
    assert all(n > 8 - rows for n in left)


def test_what_has_no_batch_runs_alone():
    """Jobs of a model without a batch dimension never share a run."""
    assert gather([(1, 0), (2, 0)], 0) == [0]


def test_only_equal_sizes_share_a_run(tmp_path):
    """Rows of different widths are run one after the other, and each comes back as it was."""
    runner = load(toys.identity_fp32(tmp_path))
    jobs = [one("FP32", (2, width), np.arange(2 * width, dtype=np.float32).tobytes()) for width in (1, 3, 1, 0)]
    for number, job in enumerate(jobs):
        runner.add(number, job)

    ids = [[frame.header["id"] for frame in Decoder().feed(b"".join(runner.step()))] for _ in range(3)]
    assert ids == [[0, 2], [1], [3]]
    found = finish(runner, *jobs)
    assert [found[n]["OUTPUT0"].data for n in range(4)] == [job.tensors[0].data for job in jobs]


@settings(max_examples=30)
@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=1, max_size=6))
def test_texts_come_back(texts, rows):
    """Elements of BYTES, empty ones and those with a zero byte included, pass through the model, batched or not."""
    jobs = [one("BYTES", (1, 2), pack_elements([each.encode() for each in row])) for row in rows]

    found = finish(texts, *jobs)
    assert [[each.decode() for each in unpack_elements("", found[n]["OUTPUT0"].data, 2)] for n in found] == rows


@pytest.fixture(scope="module", name="texts")
def _texts(tmp_path_factory) -> TensorRunner:
    return load(toys.simple_identity(tmp_path_factory.mktemp("texts")))


@pytest.mark.parametrize(
    ("make", "datatype", "data"),
    [
        (toys.identity_fp32, "FP32", np.array([1.5, -0.0, np.inf, np.nan], np.float32).tobytes()),
        (toys.identity_fp16, "FP16", np.array([1.5, -2, np.inf, np.nan], np.float16).tobytes()),
        (toys.identity_bf16, "BF16", bytes(range(8))),
        (toys.identity_bool, "BOOL", b"\x00\x01\x01\x00"),
    ],
)
def test_every_bit_comes_back(tmp_path, make, datatype, data):
    """Numbers pass through an identity as they are, BF16 too, in a batch of two jobs."""
    runner = load(make(tmp_path))
    assert runner.warm() == ""
    found = finish(runner, one(datatype, (1, 4), data), one(datatype, (1, 4), data))

    assert [(each["OUTPUT0"].shape, each["OUTPUT0"].data) for each in found.values()] == [((1, 4), data)] * 2


@pytest.mark.parametrize("shape", [(), (1,), (2, 0, 3), (1, 2, 1, 2, 1)])
def test_any_rank_passes(tmp_path, shape):
    """A scalar, an empty tensor and one of many dimensions go through a model without a batch."""
    runner = load(toys.identity(tmp_path, "FP64", shape, max_batch=0))
    data = np.arange(np.prod(shape, dtype=int), dtype=np.float64).tobytes()
    [found] = finish(runner, one("FP64", shape, data)).values()

    assert (found["OUTPUT0"].shape, found["OUTPUT0"].data) == (shape, data)


def test_odd_numbers_are_given_as_they_are(tmp_path):
    """What is not a number, and infinity, are outputs like others."""
    [found] = finish(load(toys.nan_inf(tmp_path)), one("FP32", (1,), bytes(4))).values()

    assert np.array_equal(np.frombuffer(found["OUTPUT0"].data, "<f4"), [np.nan, np.inf, -np.inf], equal_nan=True)


def digits(*rows: list[str]) -> Job:
    """Make a job for `simple_string`."""
    data = pack_elements([each.encode() for row in rows for each in row])
    names = ("INPUT0", "INPUT1")
    return Job(Task.INFER, tensors=tuple(Tensor(name, "BYTES", (len(rows), 16), data) for name in names))


def test_one_that_fails_fails_alone(tmp_path):
    """When a run fails for one job's text, its batch mates are answered, and the runner goes on."""
    runner = load(toys.simple_string(tmp_path))
    found = finish(runner, digits(["7"] * 16), digits(["x"] * 16), digits(["8"] * 16))

    assert "the model failed" in found[1]
    assert unpack_elements("", found[0]["OUTPUT0"].data, 16) == [b"14"] * 16
    assert unpack_elements("", found[2]["OUTPUT1"].data, 16) == [b"0"] * 16


def test_a_first_inference_that_fails_is_a_doubt(tmp_path):
    """A model that cannot do what was made up for it serves all the same, and says why it was doubted."""
    assert "empty texts, failed" in load(toys.simple_string(tmp_path)).warm()


@pytest.mark.parametrize("count", [-1, 2**40, 2**62])
def test_an_output_beyond_all_memory_is_a_failure(tmp_path, count):
    """A model that asks for more memory than there is fails its job, and does the next."""
    runner = load(toys.zeros(tmp_path))
    found = finish(runner, one("INT64", (1,), np.int64(count).tobytes()), one("INT64", (1,), np.int64(2).tobytes()))

    assert "the model failed" in found[0]
    assert found[1]["OUTPUT0"].data == bytes(2)


def test_text_beside_bf16_is_refused(tmp_path):
    """The runtime's interface takes texts and BF16 by different ways, so a model of both is refused by name."""
    nodes = [
        helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"]),
        helper.make_node("Identity", ["INPUT1"], ["OUTPUT1"]),
    ]
    kinds = {"INPUT0": "BYTES", "OUTPUT0": "BYTES", "INPUT1": "BF16", "OUTPUT1": "BF16"}
    directory = toys.tensor_model(tmp_path, nodes, {name: (kind, (-1,)) for name, kind in kinds.items()}, 0)

    with pytest.raises(ManifestError, match=r"inputs: INPUT0: BYTES beside BF16 \(INPUT1\)"):
        load(directory)


def test_outputs_that_were_not_declared_are_a_failure(tmp_path):
    """A model that gives another shape than model.yaml says fails the job, with both shapes, instead of lying."""
    nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    runner = load(toys.tensor_model(tmp_path, nodes, {"INPUT0": ("FP32", (-1,)), "OUTPUT0": ("FP32", (3,))}, 0))
    found = finish(runner, one("FP32", (3,), bytes(12)), one("FP32", (2,), bytes(8)))

    assert found[0]["OUTPUT0"].shape == (3,)
    assert "'OUTPUT0' of shape [2]; [3] is declared" in found[1]


def test_rows_that_get_lost_are_a_failure(tmp_path):
    """A model that drops rows of its batch gives nobody somebody else's."""
    nodes = [helper.make_node("Compress", ["INPUT0", "first"], ["OUTPUT0"], axis=0)]
    first = onnx.numpy_helper.from_array(np.array([True]), "first")
    tensors = {"INPUT0": ("FP32", (-1, 2)), "OUTPUT0": ("FP32", (-1, 2))}
    directory = toys.tensor_model(tmp_path, nodes, tensors, 8, [first])
    found = finish(load(directory), one("FP32", (1, 2), bytes(8)), one("FP32", (2, 2), bytes(16)))

    assert found[0]["OUTPUT0"].shape == (1, 2)
    assert "1 rows of 'OUTPUT0' for 2 rows" in found[1]


@pytest.mark.parametrize(
    ("make", "job", "words"),
    [
        (toys.identity_bool, one("BOOL", (1, 2), b"\x00\x02"), "neither 0 nor 1"),
        (
            toys.simple_identity,
            one("BYTES", (1, 1), pack_elements([b"\xff"])),
            "element 0 of input 'INPUT0' is not UTF-8",
        ),
        (toys.simple_identity, one("BYTES", (1, 2), pack_elements([b"a"])), "string elements 1 .*, expecting 2"),
        (toys.identity_fp32, one("FP32", (0, 2**63), b""), "a shape that no array can have"),
        (toys.simple_identity, one("BYTES", (1, 2**62), b""), "string elements 0 .*, expecting 4611686018427387904"),
        (toys.simple, Job(Task.EMBED, inputs=("w1",)), "task infer was asked for embed"),
    ],
)
def test_a_bad_job_is_refused_and_forgotten(tmp_path, make, job, words):
    """Elements that are none of their datatype raise BadJob that says which, and the runner stays idle."""
    runner = load(make(tmp_path))
    with pytest.raises(BadJob, match=words):
        runner.add(1, job)
    assert not runner.busy


def test_a_cancelled_job_is_not_run(simple):
    """A job that is cancelled while it waits is never answered; one that is over or never was is no error."""
    simple.add(1, pair([[0] * 16], [[0] * 16]))
    simple.cancel(1)
    simple.cancel(7)
    assert not simple.busy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("INPUT1: {datatype: INT32, shape: [-1, 16]}", ""), "inputs: the graph needs INPUT1 too"),
        (("INPUT1:", "INPUT7:"), "inputs: the graph needs INPUT1 too"),
        (("OUTPUT1:", "OUTPUT7:"), "outputs: OUTPUT7: the graph has no such tensor; it has OUTPUT0, OUTPUT1"),
        (("INPUT0: {datatype: INT32", "INPUT0: {datatype: FP32"), "INPUT0: datatype: FP32; the graph's is INT32"),
        (
            ("INPUT0: {datatype: INT32, shape: [-1, 16]", "INPUT0: {datatype: INT32, shape: [-1, 8]"),
            "[-1,8]; the graph",
        ),
        (("OUTPUT0: {datatype: INT32, shape: [-1, 16]", "OUTPUT0: {datatype: INT32, shape: [-1]"), "[-1]; the graph"),
    ],
)
def test_a_declaration_that_does_not_fit_the_graph_is_named(tmp_path, change, words):
    """A model.yaml that the graph contradicts is refused at the start, with tensor, finding and what is allowed."""
    file = toys.simple(tmp_path) / "model.yaml"
    file.write_text(file.read_text().replace(*change))

    with pytest.raises(ManifestError) as caught:
        load(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("max_batch: 8", "max_batch: -1"), "limits: max_batch: -1; a whole number above -1"),
        (("max_batch: 8", "max_batch: 8, max_tokens: 4"), "limits: found max_batch, max_tokens; exactly max_batch"),
        (("datatype: INT32", "datatype: STRING"), "inputs: INPUT0: datatype: 'STRING'; one of BOOL"),
        (("shape: [-1, 16]", "shape: [-1, big]"), "inputs: INPUT0: shape: [-1, 'big']; a list of sizes"),
        (("shape: [-1, 16]", "shape: [16]"), "shape: [16]; the first size is the batch and must be -1"),
        (("shape: [-1, 16]", "shape: []"), "shape: []; the first size is the batch"),
        ((", shape: [-1, 16]", ""), "inputs: INPUT0: found datatype; exactly datatype, shape"),
        (("task: infer", "task: infer\noutput: x"), "exactly inputs, limits, outputs, task"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path, change, words):
    """Each mistake in the model.yaml of a model of tensors names the key, what was found and what is needed."""
    file = toys.simple(tmp_path) / "model.yaml"
    file.write_text(file.read_text().replace(*change))

    with pytest.raises(ManifestError) as caught:
        toys.spec(tmp_path)
    assert words in str(caught.value)
