"""What is installed: four packages with common names, which must be ours alone, and pinned versions of the rest."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGES = {"config", "cache", "backends", "gateway"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normalised(name: str) -> str:
    """Return a distribution's name in the one spelling that compares equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> list[str]:
    """Return the lines of constraints.txt that are no comments."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_each_package_name_is_ours_alone(package: str) -> None:
    """No other installed distribution has a package of this name, and the name leads to this repository."""
    assert set(packages_distributions().get(package, ())) <= {"warmgate"}
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")


def test_the_wheel_has_exactly_the_four_packages(tmp_path: Path) -> None:
    """The wheel that users install holds the four packages and its metadata, and no test, script or model."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_project_cannot_be_uploaded() -> None:
    """The classifier that every package index refuses is set, for the packages' names are too common to share."""
    assert "Private :: Do Not Upload" in PROJECT["classifiers"]


def test_constraints_are_exact_versions_from_nowhere_in_particular() -> None:
    """Each line pins one version, and none names a registry, a URL or an option."""
    assert [line for line in constraints() if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []
    names = [normalised(line.partition("==")[0]) for line in constraints()]
    assert sorted(set(names)) == sorted(names)


def test_every_dependency_is_pinned() -> None:
    """Whatever pyproject.toml asks for, the constraints name its version."""
    pinned = {normalised(line.partition("==")[0]) for line in constraints()}
    wanted = [
        *PROJECT["dependencies"],
        *(name for extra in PROJECT["optional-dependencies"].values() for name in extra),
    ]
    names = {normalised(found[0]) for text in wanted if (found := re.match(r"[A-Za-z0-9._-]+", text))}
    assert names - pinned == set()


def test_whatever_a_dependency_pulls_in_is_pinned() -> None:
    """Nothing is left for pip to choose, now or later: each package that is needed here has its line."""
    pinned = {normalised(line.partition("==")[0]) for line in constraints()}
    waiting, seen = [("warmgate", extra) for extra in ("", *PROJECT["optional-dependencies"])], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            needed = map(Requirement, distribution(name).requires or ())
            for each in (each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})):
                waiting += [(normalised(each.name), extra) for extra in ("", *each.extras)]
    assert {name for name, _ in seen} - pinned - {"warmgate"} == set()
