"""How much memory an item of a flight takes, near enough for a bound. Knows nothing of flights."""

from backends.contract import Frame, Made, Reasoning, Scores, Tensors, Text, ToolCall, Vectors
from gateway.answer import Head

MOST_BYTES = 64 * 2**20
"""What a flight keeps at most."""
# An object with its fields, and its place in a list; a piece is a pair, with two such in it.
_ITEM_BYTES = 200


def weight(item: Head | Made) -> int:
    """Return about how many bytes an item takes."""
    if type(item) is tuple:
        return _ITEM_BYTES + len(item[0]) + len(item[1])
    match item:
        case Text() | Reasoning():
            return _ITEM_BYTES + len(item.text)
        case Frame() | Vectors() | Scores():
            return _ITEM_BYTES + len(item.data)
        case ToolCall():
            return _ITEM_BYTES + len(item.arguments)
        case Tensors():
            return _ITEM_BYTES + sum(_ITEM_BYTES + len(each.data) for each in item.outputs)
        case _:
            return _ITEM_BYTES
