"""The command line: `warmgate serve` and `warmgate check`. Knows nothing of how the gateway is built."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from backends.contract import StartFailed
from config.load import load
from config.problems import ConfigError
from config.settings import Settings
from gateway.tls import TlsFilesError

_BAD_CONFIG = 2
_CANNOT_START = 1
_CUT_OFF = 3
# What a stop may take beyond `shutdown_timeout`: ending workers, and writing what the caches still hold.
_CLEAN_UP_S = 15.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.config, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return _BAD_CONFIG
    if options.command == "check":
        sys.stdout.write(f"{options.config}: {len(settings.models)} models, {len(settings.routes)} routes, no faults\n")
        return 0
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells at each start which builds of itself it lacks
    return _serve_until_stopped(Path(options.config), settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="warmgate", description="A gateway in front of AI models.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve what a config file says")
    serve.add_argument("--config", required=True, metavar="FILE")
    serve.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    check = commands.add_parser("check", help="say whether a config file is sound, and where it is not")
    check.add_argument("config", metavar="FILE")
    return parser


def _serve_until_stopped(path: Path, settings: Settings) -> int:
    import uvloop  # noqa: PLC0415 - `warmgate check` has no use for it

    try:
        uvloop.run(_serve(path, settings))
    except TimeoutError:
        sys.stderr.write("warmgate: what did not stop in time was cut off\n")
        return _CUT_OFF
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error  # a resolver's errors are below 0
        sys.stderr.write(f"warmgate: cannot listen on {settings.server.listen}: {why}\n")
        return _CANNOT_START
    except (StartFailed, TlsFilesError) as error:
        sys.stderr.write(f"warmgate: {error}\n")
        return _CANNOT_START
    return 0


async def _serve(path: Path, settings: Settings) -> None:
    # Heavy; a faulty config should be told of at once.
    from gateway.app import running  # noqa: PLC0415
    from gateway.building.reload import ConfigFile  # noqa: PLC0415

    file = ConfigFile(path, settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # One deadline for the whole stop; the children of a gateway that misses it end with it all the same.
    async with asyncio.timeout(None) as limit, running(settings, file) as gateway:
        gc.freeze()  # what the start made is here to stay: to visit it at each full collection pauses everybody
        scheme = "http" if settings.server.tls is None else "https"
        sys.stderr.write(f"warmgate serves on {scheme}://{gateway.host}:{gateway.port}\n")
        following = asyncio.create_task(file.follow(gateway), name="config file")
        await stop.wait()
        following.cancel()
        limit.reschedule(loop.time() + gateway.generation.settings.server.shutdown_timeout_s + _CLEAN_UP_S)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # a second signal ends it at once
        await gateway.drain(gateway.generation.settings.server.shutdown_timeout_s)


if __name__ == "__main__":
    main()
