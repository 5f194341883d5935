"""From a YAML file to settings, or to one error with all its faults. Knows nothing of what the settings drive."""

from collections.abc import Mapping
from pathlib import Path as FilePath

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.checks import conflicts
from config.document import Node, read
from config.parsing import HIDDEN
from config.problems import ConfigError, Path, Problem, dotted, shown, suggestion
from config.settings import Settings, fields_of, section_at

MAX_FILE_BYTES = 2**20
MAX_FAULTS = 1000

_KINDS = {"model_type": "a mapping", "mapping_type": "a mapping", "dict_type": "a mapping", "tuple_type": "a list"}


def load(path: str | FilePath, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a YAML file; `${NAME}` in secrets is taken from `environ`.

    Reads the file, so it blocks. Raises `ConfigError` with every fault that could be found at once.
    """
    return parse(_text_of(FilePath(path)), environ, source=str(path))


def parse(text: str, environ: Mapping[str, str], *, source: str) -> Settings:
    """Return the settings of a YAML text; `source` names it in errors. Raises `ConfigError`."""
    root, problems = read(text, source)
    if root is None or root.value is None:
        raise ConfigError(source, [*problems, Problem(None, "", None, "empty: it must at least have models")])
    if not isinstance(root.value, dict):
        raise ConfigError(
            source, [Problem(root.line, "", None, "not a mapping: write keys such as server: and models:")]
        )
    found = [*problems, *_without_value(root, ())]
    try:
        settings = Settings.model_validate(root.plain(), context=environ)
    except ValidationError as error:
        known = {problem.key for problem in found}
        faults = (_fault(details, root) for details in error.errors(include_url=False)[:MAX_FAULTS])
        found += [fault for fault in faults if fault.key not in known]
        raise ConfigError(source, found) from None
    for conflict in conflicts(settings):
        value = None if conflict.value is None else shown(conflict.value)
        found.append(Problem(root.line_of(conflict.path), dotted(conflict.path), value, conflict.message))
    if found:
        raise ConfigError(source, found)
    return settings


def _text_of(path: FilePath) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), [Problem(None, "", None, f"cannot be read: {error.strerror}")]) from None
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


def _without_value(node: Node, path: Path) -> list[Problem]:
    """Return a problem for each key or list item that has no value."""
    match node.value:
        case None:
            return [Problem(node.line, dotted(path), None, "has no value: give it one, or remove the key")]
        case dict() as entries:
            return [problem for key, child in entries.items() for problem in _without_value(child, (*path, key))]
        case tuple() as items:
            return [problem for index, child in enumerate(items) for problem in _without_value(child, (*path, index))]
        case _:
            return []


def _fault(details: ErrorDetails, root: Node) -> Problem:
    """Turn one error of pydantic into words of ours."""
    # pydantic marks a fault of a mapping's key by a last step "[key]"
    path = tuple(details["loc"])
    if path[-1:] == ("[key]",):
        path = path[:-1]
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
