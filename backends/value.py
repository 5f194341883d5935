"""Values: what the rooms give each other. Knows none of them."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(kind: type[T]) -> type[T]:
    """Make a class of a value, which nobody changes: the type checker sees to that.

    For those of which every request makes several: to build a dataclass that is frozen at run time too takes five
    times as long, since each field is set by a call.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)
