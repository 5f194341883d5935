"""What makes the starts of `onnx` workers shorter, for all models of one gateway together. Knows no pool."""

from collections.abc import Callable
from dataclasses import dataclass

from backends.graphs import Graphs


@dataclass(frozen=True, slots=True)
class Warmers:
    """Optimised graphs on disk."""

    graphs: Graphs

    @classmethod
    def of(cls, room: Callable[[], float]) -> "Warmers":
        """Make them; `room` tells how many bytes of the host are free."""
        return cls(Graphs(room))

    def transient_bytes(self) -> int:
        """Return what is held of the host beside replicas, and free again soon."""
        return self.graphs.making_bytes

    async def close(self) -> None:
        """End what is under way."""
        await self.graphs.close()
