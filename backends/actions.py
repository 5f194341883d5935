"""What the keeper may do, each with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Start one more replica of `model`, on these GPUs where it needs any."""

    model: str
    why: str
    devices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """Let `replica` of `model` finish what it holds, then end it: for `missing_bytes` that another lacks, if any."""

    model: str
    replica: str
    why: str
    missing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Demote:
    """Put `replica` of `model`, which is ready and has no job, to sleep: one level down, not out. See `Stop`."""

    model: str
    replica: str
    why: str
    missing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Wake:
    """Bring `replica` of `model`, which sleeps, back to the warmest level."""

    model: str
    replica: str
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A replica of `model` is wanted, and cannot start yet.

    `makes_room`: others are sent away for it because its last start ran out of memory, which is done once.
    """

    model: str
    why: str
    makes_room: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """A replica of `model` is wanted and can never start: whoever waits for it is told so."""

    model: str
    why: str


Action = Start | Stop | Demote | Wake | Wait | Refuse
