"""A Redis server of one test's own, on a Unix socket or a port, that can be killed, paused and started again."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from scripts.benchmarks.programs import find, free_port

_DEADLINE_S = 20.0


class RedisServer:
    """A server that keeps nothing on disk. What it held is gone after `kill`."""

    def __init__(self, directory: Path, *, tcp: bool = False, password: str | None = None) -> None:
        self._directory = directory
        self.port = free_port() if tcp else 0
        # A path of a socket may have about a hundred bytes.
        self._socket = directory / "s"
        self.password = password
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it is, with the password."""
        if self.port:
            return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"
        return f"unix://{self._socket}{f'?password={self.password}' if self.password else ''}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._directory), "--port", str(self.port)]
        options += ["--bind", "127.0.0.1"] if self.port else ["--unixsocket", str(self._socket)]
        options += ["--requirepass", self.password] if self.password else []
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([find("redis-server"), *options], stdout=log, stderr=log)
        deadline = time.monotonic() + _DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "redis.log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.005)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it accept connections and answer nothing: it is slow without end."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def command(self, *words: str | bytes | int) -> bytes:
        """Run a command over a connection of its own; return the raw reply, which is to be small."""
        with self._connected() as connection:
            if self.password:
                connection.sendall(_encoded("AUTH", self.password))
                assert connection.recv(1024) == b"+OK\r\n"
            connection.sendall(_encoded(*words))
            return connection.recv(1 << 16)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _connected(self) -> socket.socket:
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port), timeout=_DEADLINE_S)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_DEADLINE_S)
        try:
            connection.connect(str(self._socket))
        except OSError:
            connection.close()
            raise
        return connection

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False


def _encoded(*words: str | bytes | int) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
