"""Reads YAML text into nodes that know their line. Knows nothing of which keys mean what.

Scalars are read by YAML 1.2's core rules, so that `no`, `off` and `12:30` are text. Tags and merge keys are not read.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from config.problems import ConfigError, Path, Problem, dotted, shown

MAX_DEPTH = 20
MAX_VALUES = 10_000

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_WHOLE = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Node:
    """A value, the line (from 1) of its key, or of itself in a list, and how many values it holds with itself."""

    line: int
    value: "bool | int | float | str | tuple[Node, ...] | dict[str, Node] | None"
    size: int = 1

    def plain(self) -> object:
        """Return the value alone, with tuples for lists."""
        match self.value:
            case dict():
                return {key: node.plain() for key, node in self.value.items()}
            case tuple():
                return tuple(node.plain() for node in self.value)
            case _:
                return self.value

    def line_of(self, path: Path) -> int:
        """Return the line of the value at `path`, or of the innermost value around it where that is absent."""
        node = self
        for step in path:
            match node.value, step:
                case dict() as entries, str() if step in entries:
                    node = entries[step]
                case tuple() as items, int() if step < len(items):
                    node = items[step]
                case _:
                    break
        return node.line


def read(text: str, source: str) -> tuple[Node | None, tuple[Problem, ...]]:
    """Return the root of a YAML text (None where it is empty), and the faults that left it readable.

    Raises `ConfigError`, naming `source`, where the text is not one YAML document within the bounds of this module.
    """
    reader = _Reader(source)
    # ruamel warns of habits that are no faults here; what is one, this module reports itself.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            root = reader.document(_events(text))
        except MarkedYAMLError as error:
            raise ConfigError(source, [_syntax_problem(error, text)]) from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            message = f"not YAML: the character U+{int(error.character):04X} is not allowed"
            raise ConfigError(source, [Problem(line, "", None, message)]) from None
        except YAMLError as error:
            raise ConfigError(source, [Problem(None, "", None, f"not YAML: {error}")]) from None
    return root, tuple(reader.problems)


def _events(text: str) -> Iterator[Event]:
    yield from YAML(typ="safe", pure=True).parse(text)


class _Reader:
    """Turns one stream of YAML events into nodes."""

    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._anchored: dict[str, Node] = {}
        self._values = 0

    def document(self, events: Iterator[Event]) -> Node | None:
        root: Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise self._refusal(event, (), "a second document: the file must hold one")
                root = self._node(next(events), events, ())
            elif isinstance(event, StreamEndEvent):
                break
        return root

    def _node(self, event: Event, events: Iterator[Event], path: Path) -> Node:
        if isinstance(event, AliasEvent):
            return self._counted(event, self._alias(event, path), path)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._refusal(event, path, f"the tag {shown(_tag_text(tag))} is not read here: remove it")
        if len(path) > MAX_DEPTH:
            raise self._refusal(event, path[:3], f"nested deeper than {MAX_DEPTH} levels")
        node = self._counted(event, self._built(event, events, path), path)
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self._anchored[event.anchor] = node
        return node

    def _built(self, event: Event, events: Iterator[Event], path: Path) -> Node:
        match event:
            case MappingStartEvent():
                return self._mapping(event, events, path)
            case SequenceStartEvent():
                return self._sequence(event, events, path)
            case ScalarEvent():
                value = _scalar(event.value) if event.implicit[0] else event.value
                return Node(_line(event), value)
            case _:
                raise AssertionError(f"the YAML parser gave {event!r} in place of a value")

    def _mapping(self, start: Event, events: Iterator[Event], path: Path) -> Node:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self._refusal(event, path, "a key must be plain text")
            key, line = str(event.value), _line(event)
            first = entries.get(key)
            node = self._node(next(events), events, (*path, key))
            if first is None:
                entries[key] = replace(node, line=line)
            else:
                message = f"is written twice, first in line {first.line}: remove one"
                self.problems.append(Problem(line, dotted((*path, key)), None, message))
        return Node(_line(start), entries, 1 + sum(node.size for node in entries.values()))

    def _sequence(self, start: Event, events: Iterator[Event], path: Path) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            items.append(self._node(event, events, (*path, len(items))))
        return Node(_line(start), tuple(items), 1 + sum(node.size for node in items))

    def _alias(self, event: AliasEvent, path: Path) -> Node:
        node = self._anchored.get(event.anchor)
        if node is None:
            raise self._refusal(event, path, f"*{event.anchor} names no anchor before it")
        return replace(node, line=_line(event))

    def _counted(self, event: Event, node: Node, path: Path) -> Node:
        """Bound the file's values with aliases written out, so that aliases of aliases cannot explode."""
        self._values += node.size if isinstance(event, AliasEvent) else 1
        if self._values > MAX_VALUES:
            raise self._refusal(event, path[:3], f"more than {MAX_VALUES} values, aliases written out")
        return node

    def _refusal(self, event: Event, path: Path, message: str) -> ConfigError:
        return ConfigError(self._source, [*self.problems, Problem(_line(event), dotted(path), None, message)])


def _scalar(text: str) -> bool | int | float | str | None:
    """Read an unquoted scalar by YAML 1.2's core rules, without hexadecimal, octal, `.inf` and `.nan`."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _WHOLE.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _tag_text(tag: object) -> str:
    return str(tag).replace("tag:yaml.org,2002:", "!!", 1)


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _syntax_problem(error: MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else int(mark.line) + 1
    lines = text.splitlines()
    if line is not None and line <= len(lines) and "\t" in lines[line - 1][: mark.column + 1]:
        return Problem(line, "", None, "not YAML: a tab; indent with spaces")
    where = "" if error.context is None else f" {error.context}"
    if error.context_mark is not None and int(error.context_mark.line) + 1 != line:
        where += f" that begins in line {int(error.context_mark.line) + 1}"
    return Problem(line, "", None, f"not YAML: {error.problem}{where}")
