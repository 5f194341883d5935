"""The conformance list keeps step with the tests: each one that it names is there, and each line names some."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/cache-conformance.md"
NAMED = re.compile(r"`((?:e2e/)?test_\w+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """Return the cells of every line of every table."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "Claim" and not row[0].startswith("---")]


def names_in(file: Path) -> set[str]:
    """Return the names of a file's tests."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_claim_names_tests_that_are_there(row: list[str]) -> None:
    """A claim without a test would be a wish."""
    named = NAMED.findall(row[-1])
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in names_in(TESTS / file)] == []


def test_every_conformance_test_is_on_the_list() -> None:
    """What is tested from outside is of use to others, and so is on the page."""
    named = {(file, name) for row in rows() for file, name in NAMED.findall(row[-1])}
    ours = {
        (file.name, name)
        for file in TESTS.glob("test_conformance_*.py")
        for name in names_in(file)
        if name.startswith("test_")
    }
    assert ours - named == set()
