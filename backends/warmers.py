"""What makes the starts of `onnx` workers shorter, for all models of one gateway together. Knows no pool."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from backends.forkserver.client import ForkServer
from backends.graphs import Graphs
from backends.standby import Standby


@dataclass(frozen=True, slots=True)
class Warmers:
    """Optimised graphs on disk, and workers that stand by on devices."""

    graphs: Graphs
    standby: Standby = field(default_factory=Standby)

    @classmethod
    def of(cls, room: Callable[[], float]) -> "Warmers":
        """Make them; `room` tells how many bytes of the host are free."""
        return cls(Graphs(room))

    async def use(self, directory: Path | None, limit_bytes: int, fork_server: ForkServer, gpus: Iterable[str]) -> None:
        """Keep graphs there, and fork from there, from now on."""
        await self.graphs.use(directory, limit_bytes, fork_server, gpus)
        await self.standby.use(fork_server)

    def transient_bytes(self) -> int:
        """Return what is held of the host beside replicas, and free again soon, or when somebody waits for memory."""
        return self.graphs.making_bytes + self.standby.held_bytes()

    async def close(self) -> None:
        """End what is under way, and who stands by."""
        await self.graphs.close()
        await self.standby.close()
