"""`warmgate cache`: the statistics of a running gateway's caches, purging them, and checking what lies on the disk."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.pages.asking import CannotAsk, NobodyListens, ask

if TYPE_CHECKING:
    from cache.disk.check import Report

_STATS = "/admin/cache"
_PURGE = "/admin/cache/purge"
# To count by model, or in a dry run, every answer is read.
_TIMEOUT_S = 600.0
_DONE, _FAILED, _MISUSED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where the command line's config says that a gateway listens and keeps its cache; None is what it leaves open."""

    url: str | None = None
    certificate: Path | None = None
    directory: Path | None = None


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", seconds_of: Callable[[object], float]
) -> None:
    """Describe the command and its own ones; `seconds_of` reads a time such as 90s, or raises `ValueError`."""
    cache = commands.add_parser("cache", help="tell of the caches, purge them, or check them")
    actions = cache.add_subparsers(dest="action", required=True)
    stats = actions.add_parser("stats", help="tell what the caches of a running gateway hold, and what happened there")
    stats.add_argument("--by-model", action="store_true", help="count the answers of each model; reads them all")
    purge = actions.add_parser("purge", help="end answers that a running gateway has cached, for good")
    _add_choices(purge.add_mutually_exclusive_group(required=True), seconds_of)
    purge.add_argument("--dry-run", action="store_true", help="tell how much would go, and end nothing")
    fsck = actions.add_parser("fsck", help="check what lies on the disk row by row, whether a gateway runs or not")
    fsck.add_argument("--repair", action="store_true", help="delete what is bad")
    where = fsck.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", metavar="FILE", help="check the directory that FILE names")
    where.add_argument("--directory", metavar="DIR", help="check this directory")
    for command in (stats, purge):
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--config", metavar="FILE", help="ask the gateway that listens where FILE says")
        which.add_argument("--url", help="ask the gateway at this URL, on this machine")
    for command in (stats, fsck):
        command.add_argument("--json", action="store_true", help="print JSON")


def _add_choices(group: "argparse._MutuallyExclusiveGroup", seconds_of: Callable[[object], float]) -> None:
    def age(text: str) -> float:
        try:
            return seconds_of(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{text}' {error}") from error

    group.add_argument("--all", action="store_true", help="all answers")
    group.add_argument("--model", metavar="NAME", help="answers that this model gave")
    group.add_argument("--version", metavar="VERSION", help="answers that this version of a model gave")
    group.add_argument("--route", metavar="NAME", help="answers to requests that named this route or model")
    group.add_argument("--tag", metavar="TAG", help="answers that bear this tag")
    group.add_argument("--scope", metavar="KEY", help="answers to this key, by its name; '' for callers without one")
    group.add_argument("--key", metavar="HEX", help="the answer under this key of the cache")
    group.add_argument("--older-than", type=age, metavar="TIME", help="answers stored longer ago, such as 12h")


def run(options: argparse.Namespace, place: Place) -> int:
    """Do what the command line says, and return its exit status."""
    if options.action == "fsck":
        return _fsck(options, place)
    try:
        return _stats(options, place) if options.action == "stats" else _purge(options, place)
    except CannotAsk as error:
        sys.stderr.write(f"warmgate: {error}\n")
        if isinstance(error, NobodyListens):
            sys.stderr.write(
                f"warmgate: 'cache {options.action}' asks a gateway that runs: start it, or say where it is by --url\n"
                "(what lies on the disk of one that does not run is checked by 'cache fsck')\n"
            )
        return _FAILED


def _ask(options: argparse.Namespace, place: Place, page: str, body: object = None) -> Any:
    url = options.url or place.url
    if url is None:
        raise CannotAsk("the config leaves the port open: give --url")
    return ask(url, page, place.certificate, _TIMEOUT_S, body)


def _stats(options: argparse.Namespace, place: Place) -> int:
    told = _ask(options, place, f"{_STATS}?by=model" if options.by_model else _STATS)
    sys.stdout.write(f"{json.dumps(told, indent=2)}\n" if options.json else _as_text(told))
    return _DONE


def _as_text(told: dict[str, Any], indent: str = "") -> str:
    """Write nested values one a line."""
    return "".join(
        f"{indent}{name}:\n{_as_text(value, indent + '  ')}"
        if isinstance(value, dict)
        else f"{indent}{name}: {value}\n"
        for name, value in told.items()
    )


def _purge(options: argparse.Namespace, place: Place) -> int:
    choices = ("all", "model", "version", "route", "tag", "scope", "key")
    body = {name: value for name in choices if (value := getattr(options, name)) not in (None, False)}
    if options.older_than is not None:
        body["older_than_s"] = options.older_than
    # Purging counts nothing, so what goes is asked before: a misspelt name would go unnoticed.
    told = _ask(options, place, _PURGE, {**body, "dry_run": True})
    found = f"{told['entries']} answers of {told['bytes']} bytes"
    stranger = ", and its config has no such model" if "unknown_model" in told else ""
    if options.dry_run:
        sys.stdout.write(f"{found} would go{stranger}\n")
        return _DONE
    _ask(options, place, _PURGE, {**body, "dry_run": False})
    done = f"purged: {found}" if told["entries"] else "purged, but nothing of that was cached"
    sys.stdout.write(f"{done}{stranger}\n")
    return _DONE


def _fsck(options: argparse.Namespace, place: Place) -> int:
    from cache.disk.check import CannotCheckError, check  # noqa: PLC0415 - the other commands need no database

    directory = place.directory if options.directory is None else Path(options.directory)
    if directory is None:
        sys.stderr.write(f"warmgate: {options.config} has no section 'cache'\n")
        return _MISUSED
    try:
        report = check(directory, repair=options.repair)
    except CannotCheckError as error:
        sys.stderr.write(f"warmgate: {error}\n")
        return _MISUSED
    sys.stdout.write(_report_json(report) if options.json else _report_text(report))
    return _DONE if report.left == 0 else _FAILED


def _report_json(report: "Report") -> str:
    told = {
        "rows": report.rows, "sound": report.sound, "bad": dict(report.bad), "faults": report.faults,
        "marks": report.marks, "removed": report.removed, "left": report.left,
    }  # fmt: skip
    return f"{json.dumps(told, indent=2)}\n"


def _report_text(report: "Report") -> str:
    bad: Counter[str] = report.bad
    lines = [f"{report.rows} rows, {report.sound} of them sound; {report.marks} purges in force"]
    lines += [f"  {count} {what}" for what, count in bad.most_common()]
    lines += [f"  {fault}" for fault in report.faults]
    lines.append(f"{report.removed} rows removed, {report.left} defects left")
    return "".join(f"{line}\n" for line in lines)
