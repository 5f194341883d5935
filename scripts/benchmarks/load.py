"""Puts load on a server with wrk, and reads what wrk prints. Knows nothing of who is measured."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.benchmarks import programs
from scripts.benchmarks.programs import Served

CONNECTIONS = 32
NUMBER = "000000000"
"""Stands in a body for a number that is another in each request."""

_GRACE_S = 10.0
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}
_ANSWERS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_BAD_STATUS = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)$", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"^\s*Socket errors: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What wrk saw in one run: answers, in all and per second, and the latency at this load."""

    answers: int
    per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Load:
    """One run: answers per second, latency, and the time that the server's process computed for one answer.

    Where others use the server's core too, the rate falls with what they take; the computing time hardly does.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Post:
    """The request that is sent again and again; where its body has `NUMBER`, each has another number in its place."""

    path: str
    headers: Mapping[str, str]
    body: str


class BadRunError(RuntimeError):
    """wrk saw errors, or printed what cannot be read: its figures mean nothing."""


def run(
    server: Served, post: Post, seconds: int, core: int, connections: int = CONNECTIONS, *, script: str | None = None
) -> Load:
    """Send `post` to a server for some seconds over keep-alive connections, from one thread on `core`.

    Another `script` for wrk may vary it.
    """
    before_s = server.cpu_s()
    seen = parse(_wrk(server.url + post.path, script or lua(post), seconds, core, connections))
    cpu_us = (server.cpu_s() - before_s) * 1e6 / seen.answers
    return Load(seen.per_s, seen.p50_ms, seen.p99_ms, cpu_us)


def _wrk(url: str, lines: str, seconds: int, core: int, connections: int) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as script, programs.pinned_to(core):
        script.write(lines)
        script.flush()
        command = [programs.find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name]
        ended = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=seconds + _GRACE_S)
    return ended.stdout


def lua(post: Post) -> str:
    """Write the script that makes wrk send a request; where it is always the same, wrk formats it only once."""
    headers = [f"wrk.headers[{_quoted(name)}] = {_quoted(value)}" for name, value in post.headers.items()]
    begins, number, ends = post.body.partition(NUMBER)
    if number:
        body = f"{_quoted(begins)} .. string.format('%0{len(NUMBER)}d', count) .. {_quoted(ends)}"
        counting = f"count = count + 1 return wrk.format(nil, nil, nil, {body})"
        headers += ["count = 0", f"request = function() {counting} end"]
    return "\n".join(['wrk.method = "POST"', f"wrk.body = {_quoted(post.body)}", *headers, ""])


def _quoted(text: str) -> str:
    """Write a Lua string; bytes that might mean something in it are escaped by their number."""
    return '"' + "".join([chr(byte) if _is_plain(byte) else f"\\{byte:03d}" for byte in text.encode()]) + '"'


def _is_plain(byte: int) -> bool:
    return 0x20 <= byte < 0x7F and byte not in b'"\\'


def parse(output: str) -> Seen:
    """Read what wrk printed. Raises `BadRunError` where it counted any error, or no answer."""
    for counted in (_BAD_STATUS, _SOCKET_ERRORS):
        if found := counted.search(output):
            raise BadRunError(found[0].strip())
    answers, rate = _ANSWERS.search(output), _RATE.search(output)
    latency_ms = {int(percent): float(value) * _UNITS_MS[unit] for percent, value, unit in _PERCENTILE.findall(output)}
    if answers is None or rate is None or not int(answers[1]) or not {50, 99} <= latency_ms.keys():
        raise BadRunError(f"wrk printed no figures:\n{output}")
    return Seen(int(answers[1]), float(rate[1]), latency_ms[50], latency_ms[99])
