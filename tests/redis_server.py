"""A Redis server of one test's own, on a Unix socket or a port, that can be killed, paused and started again."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import trustme

from scripts.benchmarks.programs import find, free_port

_DEADLINE_S = 90.0


class RedisServer:
    """A server that keeps nothing on disk: what it held is gone after `kill`. With `tls` its port is for TLS alone."""

    def __init__(self, directory: Path, *, tcp: bool = False, tls: bool = False, password: str | None = None) -> None:
        self._directory = directory
        # A path of a socket may have about a hundred bytes. It is there beside any port.
        self._socket = directory / "s"
        self._password = password
        self._options: list[str] = []
        query = f"?password={password}" if password else ""
        self.url = f"unix://{self._socket}{query}"
        """Where it is, with the password."""
        if tcp or tls:
            port = free_port()
            self._options = ["--tls-port" if tls else "--port", str(port), "--bind", "127.0.0.1"]
            user = f":{password}@" if password else ""
            self.url = f"redis{'s' if tls else ''}://{user}127.0.0.1:{port}/0"
        if tls:
            self._encrypt()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._directory), "--unixsocket", str(self._socket)]
        options += self._options if "--port" in self._options else ["--port", "0", *self._options]
        options += ["--requirepass", self._password] if self._password else []
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
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_DEADLINE_S)
            connection.connect(str(self._socket))
            if self._password:
                connection.sendall(_encoded("AUTH", self._password))
                assert connection.recv(1024) == b"+OK\r\n"
            connection.sendall(_encoded(*words))
            return connection.recv(1 << 16)

    def reads(self) -> int:
        """Return how many commands have read entries so far."""
        told = self.command("INFO", "commandstats").decode()
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in told.splitlines() if "_mget:" in line)

    def _encrypt(self) -> None:
        authority = trustme.CA()
        ours = authority.issue_cert("127.0.0.1")
        ca, certificate, key = (self._directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(ca))
        ours.cert_chain_pems[0].write_to_path(str(certificate))
        ours.private_key_pem.write_to_path(str(key))
        self._options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
        self._options += ["--tls-ca-cert-file", str(ca), "--tls-auth-clients", "no"]
        self.url += f"?ssl_ca_certs={ca}"

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False


def _encoded(*words: str | bytes | int) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
