"""Tensors of the Open Inference Protocol: elements of BYTES come back whole, and what is not a model's is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import BadJob, Job, Task, Tensor, TensorSpec
from backends.tensors import check, fits, pack_elements, unpack_elements

SIMPLE = (TensorSpec("INPUT0", "INT32", (-1, 16)), TensorSpec("INPUT1", "INT32", (-1, 16)))
OUTPUTS = (TensorSpec("OUTPUT0", "INT32", (-1, 16)), TensorSpec("OUTPUT1", "INT32", (-1, 16)))


def tensor(name="INPUT0", datatype="INT32", shape=(1, 16), size=None) -> Tensor:
    """Make a tensor of zeros."""
    return Tensor(name, datatype, tuple(shape), bytes(64 * max(0, shape[0]) if size is None else size))


def ask(*tensors: Tensor, outputs=()) -> None:
    """Check a job against `simple`."""
    check(Job(Task.INFER, tensors=tensors, outputs=outputs), SIMPLE, OUTPUTS, 8)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_elements_come_back(elements):
    """What was packed is unpacked, empty elements and any bytes included."""
    assert unpack_elements("a", pack_elements(elements), len(elements)) == elements


@given(st.binary(max_size=60), st.integers(0, 8))
def test_no_bytes_are_misread(data, count):
    """Arbitrary bytes are refused, or are exactly what packing the elements gives."""
    try:
        elements = unpack_elements("a", data, count)
    except BadJob:
        return
    assert (len(elements), pack_elements(elements)) == (count, data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x01\x00", "incomplete string length indicator for inference input 'a', expecting 4 bytes but only 2 bytes"),
        (b"\x05\x00\x00\x00ab", "expecting string of length 5 but only 2 bytes available"),
        (pack_elements([b"x"]), "unexpected number of string elements 1 for inference input 'a', expecting 2"),
        (pack_elements([b""] * 3), "unexpected number of string elements 3 for inference input 'a', expecting 2"),
        (
            pack_elements([b""] * 9),
            "unexpected number of string elements 3 or more for inference input 'a', expecting 2",
        ),
        (b"\xff\xff\xff\xff", "expecting string of length 4294967295 but only 0"),
    ],
)
def test_a_lie_in_bytes_is_named(data, words):
    """A cut length, a cut element and a wrong number of elements are each said."""
    with pytest.raises(BadJob, match=words):
        unpack_elements("a", data, 2)


def test_a_job_of_the_models_tensors_passes():
    """Every input in its datatype and shape, in any order, with some outputs or none named, is no error."""
    ask(tensor("INPUT1", shape=(8, 16)), tensor(shape=(8, 16)))
    ask(tensor(), tensor("INPUT1"), outputs=("OUTPUT1",))


@pytest.mark.parametrize(
    ("tensors", "outputs", "param", "words"),
    [
        ([tensor("X")], (), "inputs", "unexpected inference input 'X'; the model takes 'INPUT0', 'INPUT1'"),
        ([tensor(), tensor()], (), "inputs", "input 'INPUT0' already exists in request"),
        ([tensor()], (), "inputs", "expected 2 inputs but got 1 inputs; missing 'INPUT1'"),
        ([], (), "inputs", "expected 2 inputs but got 0 inputs"),
        ([tensor(datatype="FP32"), tensor("INPUT1")], (), "inputs", "'INPUT0' data-type is 'FP32'.* expects 'INT32'"),
        ([tensor(shape=(1, 15)), tensor("INPUT1")], (), "inputs", r"Expected \[-1,16\], got \[1,15\]; the first dim"),
        ([tensor(shape=(16,)), tensor("INPUT1")], (), "inputs", r"shape for input 'INPUT0'. Expected .*, got \[16\]"),
        ([tensor(shape=(-1, 16)), tensor("INPUT1")], (), "inputs", r"got \[-1,16\]"),
        ([tensor(size=60), tensor("INPUT1")], (), "inputs", "size mismatch for input 'INPUT0'. Expected 64, got 60"),
        ([tensor(), tensor("INPUT1", shape=(2, 16))], (), "inputs", "'INPUT1' batch size does not match"),
        ([tensor(shape=(9, 16)), tensor("INPUT1", shape=(9, 16))], (), "inputs", "batch-size must be <= 8"),
        ([tensor(shape=(0, 16)), tensor("INPUT1", shape=(0, 16))], (), "inputs", "at least 1, got 0"),
        ([tensor(), tensor("INPUT1")], ("Y",), "outputs", "inference output 'Y'; the model gives 'OUTPUT0', 'OUTPUT1'"),
        ([tensor(), tensor("INPUT1")], ("OUTPUT0",) * 2, "outputs", "output 'OUTPUT0' already exists in request"),
    ],
)
def test_what_is_not_the_models_is_named(tensors, outputs, param, words):
    """Each way to miss a model's declaration raises BadJob that names tensor, finding and what is allowed."""
    with pytest.raises(BadJob, match=words) as caught:
        ask(*tensors, outputs=outputs)
    assert caught.value.param == param


def test_sizes_beyond_all_memory_cost_nothing():
    """A shape whose product has hundreds of digits is refused by arithmetic alone."""
    spec = (TensorSpec("a", "FP32", (-1,) * 8),)
    with pytest.raises(BadJob, match="size mismatch"):
        check(Job(Task.INFER, tensors=(Tensor("a", "FP32", (2**64,) * 8, b""),)), spec, (), 0)


def test_too_many_texts_are_refused_uncounted():
    """A tensor of more texts than a worker may be held up by is refused for its shape, before its data is read."""
    spec = (TensorSpec("a", "BYTES", (-1, -1)),)
    with pytest.raises(BadJob, match="input 'a' has 2097152 elements; of BYTES at most 1048576 are taken"):
        check(Job(Task.INFER, tensors=(Tensor("a", "BYTES", (2, 2**20), b""),)), spec, (), 8)


@given(st.lists(st.integers(-2, 3), max_size=4), st.lists(st.integers(-1, 3), max_size=4))
def test_a_shape_fits_where_every_size_is_the_declared_one(shape, declared):
    """-1 in a declaration stands for any size from 0 on, and for nothing else."""
    alike = [size == wanted or (wanted == -1 and size >= 0) for size, wanted in zip(shape, declared, strict=False)]
    assert fits(shape, declared) == (len(shape) == len(declared) and all(alike) and min(shape, default=0) >= 0)
