"""From what was weighed to a change of the YAML: only what is certain, with its evidence. Knows no trace."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from scripts.tuning.weighing import Difference

# What a change must save, of the model's own cost and of that of all models: less is not worth an edit.
_LEAST_OWN, _LEAST_WHOLE = 0.02, 0.002


@dataclass(frozen=True, slots=True)
class Change:
    """What one model's `keep_warm` is to become, and by how much that was cheaper on days that chose nothing."""

    model: str
    old: str
    new: str
    difference: Difference
    days: int

    def evidence(self) -> str:
        """Say in one line why."""
        share, low, high = (
            f"{-100 * x:.0f} %" for x in (self.difference.share, self.difference.high, self.difference.low)
        )
        return f"{share} cheaper than {self.old} over {self.days} days (95 %: {low} to {high})"


def worth_it(changes: Sequence[Change], costs: Mapping[str, float]) -> tuple[list[Change], list[Change]]:
    """Return the changes that save enough of what each model costs now (`costs`), and of all of it; then the others."""
    whole = sum(costs.values())
    enough: list[Change] = []
    slight: list[Change] = []
    for change in changes:
        share = -change.difference.share
        is_enough = share >= _LEAST_OWN and share * costs[change.model] >= _LEAST_WHOLE * whole
        (enough if is_enough else slight).append(change)
    return enough, slight


def told_of_slight(changes: Sequence[Change]) -> str:
    """Say in a line what is not proposed though it is certain."""
    words = ", ".join(f"{change.model} {change.new} ({-100 * change.difference.share:.1f} %)" for change in changes)
    return (
        f"Cheaper for certain, but by less than {100 * _LEAST_OWN:g} % of the model's own cost or"
        f" {100 * _LEAST_WHOLE:g} % of the whole, and not proposed: {words}."
    )


class SharedError(Exception):
    """What is to be changed has an anchor: others may use it too."""


def edited(file: Path, changes: Sequence[Change]) -> str:
    """Return the file with the changes made; every other letter of it stays. Raises `SharedError`."""
    text = read(file)
    models = _value_of(YAML(typ="safe", pure=True).compose(text), "models")
    edits = [_edit(change.model, _value_of(models, change.model), change.new, text) for change in changes]
    for start, end, words in sorted(edits, reverse=True):
        text = text[:start] + words + text[end:]
    return text


def read(file: Path) -> str:
    """Return a file's text with its line ends as they are."""
    return file.read_bytes().decode()


def diff(file: Path, text: str) -> str:
    """Return how the text differs from the file."""
    old = read(file).splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, text.splitlines(keepends=True), str(file), f"{file} (proposed)"))


def _edit(name: str, model: Node | None, keep_warm: str, text: str) -> tuple[int, int, str]:
    """Return which letters of the text are to be replaced, and by what."""
    pool = _value_of(model, "pool")
    old = _value_of(pool, "keep_warm")
    anchor = next((node.anchor for node in (model, pool, old) if node is not None and node.anchor), None)
    if anchor is not None:
        raise SharedError(f"models.{name} is written with the anchor '{anchor}': write keep_warm: {keep_warm} by hand")
    if pool is None:
        assert isinstance(model, MappingNode), "the config room has read it"
        return _added(model, f"pool: {{keep_warm: {keep_warm}}}", text)
    if old is None:
        assert isinstance(pool, MappingNode), "the config room has read it"
        return _added(pool, f"keep_warm: {keep_warm}", text)
    return old.start_mark.index, old.end_mark.index, keep_warm


def _added(mapping: MappingNode, entry: str, text: str) -> tuple[int, int, str]:
    """Return the edit that makes an entry the last of a mapping."""
    if not mapping.value:
        return mapping.start_mark.index, mapping.end_mark.index, f"{{{entry}}}"
    first, (_, last) = mapping.value[0][0], mapping.value[-1]
    end = _end_of(last)
    if mapping.flow_style:
        return end, end, f", {entry}"
    line_end = text.find("\n", end)
    at = len(text) if line_end < 0 else line_end
    new_line = "\n"
    if text[at - 1] == "\r":
        at, new_line = at - 1, "\r\n"
    return at, at, f"{new_line}{' ' * first.start_mark.column}{entry}"


def _end_of(node: Node) -> int:
    """Return where a value ends; the marks of blocks are at the next token, behind the comments that follow."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end_of(last[1] if isinstance(node, MappingNode) else last)
    return int(node.end_mark.index)


def _value_of(node: Node | None, key: str) -> Node | None:
    """Return the value of a key, or None where it is not written."""
    entries = node.value if isinstance(node, MappingNode) else ()
    return next((value for name, value in entries if isinstance(name, ScalarNode) and name.value == key), None)
