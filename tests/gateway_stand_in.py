"""Plays the gateway in a process of its own, to be killed: starts a fork server, a worker and a command, then waits.

Prints one line when all are up. Its argument is the model directory of the worker.
"""

import os
import socket
import sys
from pathlib import Path

import uvloop

from backends.forkserver.client import ForkServer
from backends.manifest import read_manifest
from backends.worker.spec import WorkerSpec

# One grandchild in the group, one in a session of its own, one whose parent has gone.
FAMILY = "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; wait"


async def main() -> None:
    """Bring everything up and wait to be killed."""
    fork_server = ForkServer(os.environ)
    ours, theirs = socket.socketpair()
    directory = Path(sys.argv[1])
    spec = WorkerSpec(directory, read_manifest(directory))
    worker = await fork_server.spawn_worker(spec, theirs, sys.stderr.fileno())
    theirs.close()
    command = await fork_server.spawn_command(
        ["sh", "-c", FAMILY], env={"PATH": os.defpath}, cwd=Path("/"), output_fd=sys.stderr.fileno()
    )
    sys.stdout.write(f"{fork_server.pid} {worker.pid} {command.pid}\n")
    sys.stdout.flush()
    await worker.wait()
    ours.close()


uvloop.run(main())
