"""The directory of optimised graphs: found, sealed, put in place whole, thrown out when it is full. Knows no runtime.

Each graph has a directory of its own, named by everything that it depends on. What is not whole is no graph.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

GRAPH, WEIGHTS = "graph.onnx", "graph.onnx.data"
_SEAL = "seal.json"
_FORMAT = "1"

LEAST_SESSION_S = 0.01
"""A session that is built in less leaves nothing to gain."""

_SAMPLES = 64
_SAMPLE_BYTES = 4096
"""Of the weights so many pieces are in the seal: all of them would take as long to read as building from anew."""

_ABANDONED_PREFIX = "."


def place_of(directory: Path, identity: Sequence[str]) -> Path:
    """Return where the graph is that depends on these: model, runtime, providers, machine."""
    return directory / hashlib.sha256("\n".join((_FORMAT, *identity)).encode()).hexdigest()[:32]


def is_whole(place: Path) -> bool | None:
    """Tell whether there is a graph that is as it was sealed; None where it is known that none gains.

    Raises FileNotFoundError where there is nothing. What is broken is removed.
    """
    try:
        said = json.loads((place / _SEAL).read_bytes())
        if said == {"gains": False}:
            return None
        whole = bool(said == _sealed(place))
    except FileNotFoundError:
        if not place.is_dir():
            raise
        whole = False
    except (OSError, ValueError):
        whole = False
    if whole:
        with contextlib.suppress(OSError):
            os.utime(place)  # what was used of late is thrown out last
    else:
        remove(place)
    return whole


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Give a directory to make a graph in; what is left in it at the end is removed. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=directory, prefix=f"{_ABANDONED_PREFIX}{os.getpid()}-"))
    try:
        yield fresh
    finally:
        remove(fresh)  # nothing is there any more once it was put in place


def seal(fresh: Path, place: Path, *, gains: bool) -> None:
    """Put what was made in place for good, all of it or nothing; who was there before stays. Raises OSError."""
    if not gains:
        for name in (GRAPH, WEIGHTS):
            (fresh / name).unlink(missing_ok=True)
    said = _sealed(fresh) if gains else {"gains": False}
    (fresh / _SEAL).write_text(json.dumps(said))
    for file in fresh.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    try:
        fresh.rename(place)
    except OSError:
        if not place.exists():
            raise


def trim(directory: Path, limit_bytes: int, keep: Path | None = None) -> int:
    """Throw out what was used the longest ago until no more than so many bytes are held; return how many are.

    What a process was making that is gone is thrown out as well. `keep` stays.
    """
    places = []
    for place in _children(directory):
        if place.name.startswith(_ABANDONED_PREFIX):
            if not _is_alive(place):
                remove(place)
            continue
        with contextlib.suppress(OSError):
            places.append((place.stat().st_mtime_ns, place, size_of(place)))
    held = sum(size for _, _, size in places)
    for _, place, size in sorted(places):
        if held > limit_bytes and place != keep:
            remove(place)
            held -= size
    return held


def size_of(place: Path) -> int:
    """Return the bytes of a graph's files; 0 where it is gone."""
    size = 0
    for file in _children(place):
        with contextlib.suppress(OSError):
            size += file.stat().st_size
    return size


def remove(place: Path) -> None:
    """Remove a graph; that somebody else does so too is no error."""
    shutil.rmtree(place, ignore_errors=True)


def _children(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _is_alive(place: Path) -> bool:
    number = place.name.removeprefix(_ABANDONED_PREFIX).partition("-")[0]
    return number.isdigit() and Path("/proc", number).exists()


def _sealed(place: Path) -> dict[str, object]:
    """Return what a seal says of the files as they are: the graph's digest, the weights' size and some of them."""
    graph = (place / GRAPH).read_bytes()
    digest = hashlib.sha256(graph)
    weights = place / WEIGHTS
    size = weights.stat().st_size if weights.exists() else 0
    if size:
        with weights.open("rb") as file:
            last = max(0, size - _SAMPLE_BYTES)
            for number in range(_SAMPLES):
                digest.update(os.pread(file.fileno(), _SAMPLE_BYTES, last * number // (_SAMPLES - 1)))
    return {"gains": True, "graph": len(graph), "weights": size, "digest": digest.hexdigest()}
