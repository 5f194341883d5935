"""From a YAML file to settings, or to one error with all its faults. Knows nothing of what the settings drive."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.checks import conflicts
from config.document import Node, read
from config.holes import certain, hole_at, without
from config.parsing import HIDDEN
from config.problems import ConfigError, Path, Problem, dotted, shown, suggestion
from config.reading import content_at
from config.secret import filled
from config.settings import Settings, fields_of, section_at

MAX_FILE_BYTES = 2**20
MAX_FAULTS = 1000
# Settings are nested less deep than this, so by then all that a fault makes unreadable is left out.
MAX_ROUNDS = 8

_KINDS = {"model_type": "a mapping", "mapping_type": "a mapping", "dict_type": "a mapping", "tuple_type": "a list"}


def load(path: str | FilePath, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a YAML file; `${NAME}` in secrets is taken from `environ`.

    Reads the file, so it blocks. Raises `ConfigError` with every fault that could be found at once.
    """
    return parse(_text_of(FilePath(path)), environ, source=str(path))


def load_without_secrets(path: str | FilePath, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a YAML file for who needs no secret: one that `environ` lacks stands for nothing.

    Reads the file, so it blocks. Raises `ConfigError` with every other fault.
    """
    text = _text_of(FilePath(path))
    return parse(text, filled(text, environ), source=str(path))


def parse(text: str, environ: Mapping[str, str], *, source: str) -> Settings:
    """Return the settings of a YAML text; `source` names it in errors. Raises `ConfigError`."""
    root, problems = read(text, source)
    if root is None or root.value is None:
        raise ConfigError(source, [*problems, Problem(None, "", None, "empty: it must at least have models")])
    if not isinstance(root.value, dict):
        raise ConfigError(
            source, [Problem(root.line, "", None, "not a mapping: write keys such as server: and models:")]
        )
    empty = list(_without_value(root, ()))
    found = [*problems, *(_empty_fault(root.line_of(path), path) for path in empty)]
    holes = {hole_at(path) for path in empty}
    settings, faults = _validated(root.plain(), holes, environ)
    known = {problem.key for problem in found}
    found += [fault for details in faults if (fault := _fault(details, root)).key not in known]
    for conflict in certain(conflicts(settings) if settings else (), holes):
        value = None if conflict.value is None else shown(conflict.value)
        found.append(Problem(root.line_of(conflict.path), dotted(conflict.path), value, conflict.message))
    if found:
        raise ConfigError(source, found)
    assert settings is not None, "without a fault there are settings"
    return settings


def line_at(path: str | FilePath, key: Sequence[str | int]) -> int | None:
    """Return the line of a key in a file, or of what is around it where it is not written; None where that is lost.

    Reads the file, so it blocks.
    """
    try:
        root, _ = read(_text_of(FilePath(path)), str(path))
    except ConfigError:
        return None
    return None if root is None else root.line_of(tuple(key))


def _validated(
    data: object, holes: set[Path], environ: Mapping[str, str]
) -> tuple[Settings | None, Sequence[ErrorDetails]]:
    """Return the settings without what is faulty, and the faults; add to `holes` what had to be left out.

    What is left out may be required by what is around it, which goes then as well. None: nothing useful is left.
    """
    faults: Sequence[ErrorDetails] | None = None
    for _ in range(MAX_ROUNDS):
        try:
            return Settings.model_validate(without(data, holes), context=environ), faults or ()
        except ValidationError as error:
            details = error.errors(include_url=False)[:MAX_FAULTS]
        faults = details if faults is None else faults
        holes |= {hole_at(_place(fault)[:-1] if fault["type"] == "missing" else _place(fault)) for fault in details}
        if () in holes:
            break
    return None, faults or ()


def _place(details: ErrorDetails) -> Path:
    """Return where pydantic found a fault; it marks one of a mapping's key by a last step "[key]"."""
    path = tuple(details["loc"])
    return path[:-1] if path[-1:] == ("[key]",) else path


def _text_of(path: FilePath) -> str:
    try:
        content = content_at(path, MAX_FILE_BYTES + 1)
    except OSError as error:
        where = "" if path.is_absolute() else f" (it is looked for in {FilePath.cwd()})"
        raise ConfigError(str(path), [Problem(None, "", None, f"cannot be read: {error.strerror}{where}")]) from None
    except ValueError as error:
        raise ConfigError(repr(str(path)), [Problem(None, "", None, f"cannot be read: {error}")]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(str(path), [Problem(None, "", None, "larger than 1MiB, the most that is read")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text: byte 0x{content[error.start]:02x} at offset {error.start}"
        raise ConfigError(str(path), [Problem(line, "", None, message)]) from None


def _without_value(node: Node, path: Path) -> Iterator[Path]:
    """Yield the path of each key or list item that has no value."""
    match node.value:
        case None:
            yield path
        case dict() as entries:
            for key, child in entries.items():
                yield from _without_value(child, (*path, key))
        case tuple() as items:
            for index, child in enumerate(items):
                yield from _without_value(child, (*path, index))


def _empty_fault(line: int, path: Path) -> Problem:
    return Problem(line, dotted(path), None, "has no value: give it one, or remove the key")


def _fault(details: ErrorDetails, root: Node) -> Problem:
    """Turn one error of pydantic into words of ours."""
    path = _place(details)
    line, key, kind = root.line_of(path), dotted(path), details["type"]
    if kind == "missing":
        return Problem(line, key, None, "is missing")
    if kind == "extra_forbidden":
        allowed = fields_of(section_at(path[:-1]))
        near = suggestion(str(path[-1]), allowed)
        return Problem(line, key, None, f"unknown key{near} (allowed: {', '.join(allowed)})")
    if kind in _KINDS:
        return Problem(line, key, shown(details["input"]), f"is not {_KINDS[kind]}")
    if kind == HIDDEN:
        return Problem(line, key, None, details["msg"])
    reason = details.get("ctx", {}).get("error", details["msg"])
    return Problem(line, key, shown(details["input"]), str(reason))
