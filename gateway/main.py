"""The command line: `warmgate serve`, `check`, `key`, `schema`, `cache`. Knows nothing of how the gateway is built."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from config.checks import cautions
from config.difference import Difference, difference, difference_of_plain
from config.load import line_at, load, load_without_secrets
from config.parsing import ListenAddress
from config.plain import plain
from config.problems import ConfigError, dotted
from config.schema import schema_text
from config.secret import NOT_SET, STAND_IN
from config.settings import Settings
from config.units import parse_duration
from config.watch import digest_at
from gateway.building.places import lacks
from gateway.callers.auth import new_key
from gateway.pages import cache_commands
from gateway.pages.asking import CannotAsk, in_force

_log = logging.getLogger("gateway.main")  # also where it is run as a program

_BAD_CONFIG = 2
_CANNOT_START = 1
_CUT_OFF = 3
_CANNOT_ASK = 1
_ASK_TIMEOUT_S = 2.0
_WITHOUT_SECRETS = (
    f"warmgate: a check needs no real secrets: set what is not set to a stand-in for it, such as NAME={STAND_IN},"
    " which fits everywhere"
)
_REFUSED = "would be refused on this machine with the whole edit; what is in force would stay"
# What a stop may take beyond `shutdown_timeout`: ending workers, and writing what the caches still hold.
_CLEAN_UP_S = 15.0
# What streams make is kept for followers, so that collections find next to no garbage: many short pauses delay a token
# less than few long ones do. The old are visited once two million objects more were made than freed.
_COLLECT_EVERY = (20_000, 4, 20)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    if options.command in ("schema", "key"):
        sys.stdout.write(schema_text() if options.command == "schema" else _new_key())
        return 0
    if options.command == "cache":
        try:
            return cache_commands.run(options, _place(options.config))
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            return _BAD_CONFIG
    seen = digest_at(Path(options.config))
    try:
        settings = load(options.config, os.environ)
        if options.command == "check":
            return _check(options, settings)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        if options.command == "check" and any(problem.message.endswith(NOT_SET) for problem in error.problems):
            sys.stderr.write(f"{_WITHOUT_SECRETS}\n")
        return _BAD_CONFIG
    level = options.log_level.upper()
    # Other people's debug logs may tell what ours never do: keys, and what clients sent.
    logging.basicConfig(
        level="INFO" if level == "DEBUG" else level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for room in ("config", "cache", "backends", "gateway"):
        logging.getLogger(room).setLevel(level)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells at each start which builds of itself it lacks
    config = Path(options.config)
    _log.info("serving %s; relative paths count from %s", config.absolute(), Path.cwd())
    for key, words in lacks(settings):
        _log.warning("%s: %s", dotted(key), words)
    return _serve_until_stopped(config, settings, seen)


def _new_key() -> str:
    """Return a new key, and the line of it for `server.keys`."""
    key, sha256 = new_key()
    return f'{key}\nsha256: "{sha256}"\n'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="warmgate", description="A gateway in front of AI models.")
    parser.add_argument("--version", action="version", version=f"warmgate {version('warmgate')}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve what a config file says")
    serve.add_argument("--config", required=True, metavar="FILE")
    serve.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    check = commands.add_parser(
        "check",
        help="say whether a config file is sound, and where it is not; and what it would change",
        description="Without an option, a gateway that serves FILE where FILE says that it listens is asked.",
    )
    check.add_argument("config", metavar="FILE")
    other = check.add_mutually_exclusive_group()
    other.add_argument("--against", metavar="OTHER", help="tell what changes from this file to FILE")
    other.add_argument("--url", help="tell what FILE would change in the gateway at this URL, on this machine")
    check.add_argument(
        "--strict", action="store_true", help="end with status 2 where this machine cannot serve FILE as it is meant"
    )
    commands.add_parser("key", help="make a new key for a client, and the line of it for server.keys")
    commands.add_parser("schema", help="print the JSON Schema of config files, for editors")
    cache_commands.add_parser(commands, parse_duration)
    return parser


def _check(options: argparse.Namespace, settings: Settings) -> int:
    """Tell that the file is sound, and what it would change. Raises `ConfigError` where the other file is not."""
    from gateway.building.directories import doubts  # noqa: PLC0415 - a faulty config should be told of at once

    doubted, warned = tuple(doubts(settings)), (*lacks(settings), *cautions(settings))
    found = f"no faults in itself, but {len(doubted)} that this machine cannot serve" if doubted else "no faults"
    sys.stdout.write(f"{options.config}: {len(settings.models)} models, {len(settings.routes)} routes, {found}\n")
    ending = "cannot be served on this machine"
    for key, words in (*[(key, f"{doubt}: {ending}") for key, doubt in doubted], *warned):
        sys.stderr.write(f"{options.config}:{line_at(options.config, key)}: {dotted(key)}: {words}\n")
    status = _compare(options, settings, [key for key, _ in doubted])
    return _BAD_CONFIG if options.strict and (doubted or warned) else status


def _compare(options: argparse.Namespace, settings: Settings, doubted: Sequence[tuple[str, ...]]) -> int:
    """Tell what the file changes, where there is anything to compare it with. Raises `ConfigError`."""
    if options.against is not None:
        _tell(options.against, difference(load(options.against, os.environ), settings), doubted)
        return 0
    url = options.url or _own_url(settings)
    if url is None:
        return 0
    try:
        running = in_force(url, settings.server.tls.certificate if settings.server.tls else None, _ASK_TIMEOUT_S)
    except CannotAsk as error:
        if options.url is None:
            return 0  # no gateway runs here, or none of ours
        sys.stderr.write(f"warmgate: {error}\n")
        return _CANNOT_ASK
    if options.url is not None or Path(running.file).resolve() == Path(options.config).resolve():
        changes = difference_of_plain(running.settings, plain(settings))
        _tell(f"{url} (generation {running.generation})", changes, doubted)
    return 0


def _tell(old: str, changes: Difference, doubted: Sequence[tuple[str, ...]]) -> None:
    """Tell what changes. An edit is applied as a whole or not at all: one that is refused promises nothing.

    Models' files are looked at with each edit, a certificate's only where its settings change.
    """
    if any(key[0] == "models" or any(change.path[: len(key)] == key for change in changes) for key in doubted):
        changes = Difference(tuple(replace(change, words=_REFUSED) for change in changes))
    lines = [f"  {change}\n" for change in changes] or ["  nothing changes\n"]
    sys.stdout.write(f"against {old}:\n{''.join(lines)}")


def own_url(file: str) -> str | None:
    """Return where a gateway that serves this file can be asked from this machine. Raises `ConfigError`."""
    return _own_url(load_without_secrets(file, os.environ))


def _place(file: str | None) -> cache_commands.Place:
    """Return what a config file says of where the caches are; nothing where there is no file."""
    if file is None:
        return cache_commands.Place()
    settings = load_without_secrets(file, os.environ)
    return cache_commands.Place(
        _own_url(settings),
        settings.server.tls.certificate if settings.server.tls else None,
        settings.cache.directory if settings.cache else None,
    )


def _own_url(settings: Settings) -> str | None:
    """Return where a gateway with these settings can be asked from this machine; None where that cannot be known."""
    listen = settings.server.listen
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104 - all addresses, ours too
    scheme = "http" if settings.server.tls is None else "https"
    return f"{scheme}://{ListenAddress(host, listen.port)}" if listen.port else None


def _serve_until_stopped(path: Path, settings: Settings, seen: str | None) -> int:
    import uvloop  # noqa: PLC0415 - `warmgate check` has no use for it

    from gateway.building.faults import CannotServe  # noqa: PLC0415

    try:
        uvloop.run(_serve(path, settings, seen))
    except TimeoutError:
        sys.stderr.write("warmgate: what did not stop in time was cut off\n")
        return _CUT_OFF
    except CannotServe as error:
        sys.stderr.write(f"warmgate: {error}\n")
        return _CANNOT_START
    _log.info("stopped")
    return 0


async def _serve(path: Path, settings: Settings, seen: str | None) -> None:
    # Our forks go on to run another program at once; gRPC would prepare for those that do not, and warn of it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Heavy; a faulty config should be told of at once.
    from gateway.app import running  # noqa: PLC0415
    from gateway.building.reload import ConfigFile  # noqa: PLC0415

    file = ConfigFile(path, settings, seen)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_for(number: signal.Signals) -> None:
        if not stop.is_set():
            _log.info("stopping: %s; requests under way may end", number.name)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_for, number)
    # One deadline for the whole stop; the children of a gateway that misses it end with it all the same.
    async with asyncio.timeout(None) as limit, running(settings, file) as gateway:
        gc.freeze()  # what the start made is here to stay: to visit it at each full collection pauses everybody
        gc.set_threshold(*_COLLECT_EVERY)
        scheme = "http" if settings.server.tls is None else "https"
        sys.stderr.write(f"warmgate serves on {scheme}://{_address(gateway.listeners.http_address)}\n")
        if (grpc := gateway.listeners.grpc_address) is not None:
            sys.stderr.write(f"warmgate serves gRPC on {_address(grpc)}\n")
        following = asyncio.create_task(file.follow(gateway), name="config file")
        await stop.wait()
        limit.reschedule(loop.time() + gateway.generation.settings.server.shutdown_timeout_s + _CLEAN_UP_S)
        following.cancel()
        await asyncio.wait([following])  # an edit that is being applied is undone first
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_at_once)  # not removed first: between the two one would be a KeyboardInterrupt
        await gateway.drain(gateway.generation.settings.server.shutdown_timeout_s)


def _end_at_once(number: int, _frame: object) -> None:
    """Say so, and end by the signal itself, so that the exit status tells which it was. Children end with us."""
    words = f"warmgate: ended at once by a second signal ({signal.Signals(number).name})\n"
    os.write(sys.stderr.fileno(), words.encode())
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()
