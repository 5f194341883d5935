"""From what was weighed to a change of the YAML: only what is certain, with its evidence. Knows no trace."""

import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from scripts.tuning.weighing import Difference


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


def edited(file: Path, changes: Sequence[Change]) -> str:
    """Return the file with the changes made; comments and order stay."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # the operator broke the lines
    document = yaml.load(file.read_text())
    for change in changes:
        model = document["models"][change.model]
        if "pool" not in model:
            model["pool"] = {}
        model["pool"]["keep_warm"] = change.new
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def diff(file: Path, text: str) -> str:
    """Return how the text differs from the file."""
    old = file.read_text().splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, text.splitlines(keepends=True), str(file), f"{file} (proposed)"))
