"""What an item of shared work takes, near enough for the bound on its memory."""

import sys

import pytest

from backends.contract import Finish, Frame, Made, Tensor, Tensors, Text, ToolCall, Vectors
from gateway.caching.weight import weight


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (Text("x" * 1000), 1000),
        (Frame(b"x" * 5000, "openai /chat/completions", "application/json"), 5000),
        ((b"x" * 300, "y" * 40), 340),
        (ToolCall(0, arguments="x" * 700), 700),
        (Vectors(b"x" * 4096, (1, 1024)), 4096),
        (Tensors((Tensor("a", "FP32", (250,), b"x" * 1000), Tensor("b", "FP32", (250,), b"x" * 1000))), 2000),
        (Finish("stop"), 0),
    ],
)
def test_an_item_weighs_its_payload_and_what_the_interpreter_adds(event: Made, payload: int) -> None:
    """No item counts for less than its bytes and its object, nor for much more."""
    assert payload + sys.getsizeof(event) <= weight(event) <= payload + 1000
