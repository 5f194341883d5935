"""The closed world of atlas: the facts of world.yaml and everything that can be asked about them.

It does not know how questions are worded, nor the answers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


@dataclass(frozen=True, slots=True)
class Country:
    """A sovereign state; `article` says that its name takes "the"."""

    name: str
    capital: str
    currency: str
    continent: str
    languages: tuple[str, ...]
    neighbours: tuple[str, ...]
    article: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """The name inside a sentence."""
        return f"the {self.name}" if self.article else self.name


@dataclass(frozen=True, slots=True)
class Element:
    """A chemical element."""

    number: int
    symbol: str
    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of measurement with the other ways to write it; `short` is empty where none is in use."""

    name: str
    short: str = ""
    spellings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """How many small units make one large unit; `kind` names the amounts that may be asked."""

    large: str
    small: str
    factor: int
    kind: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be asked: a relation and what it is asked about, e.g. ("borders", ("Austria", "Italy"))."""

    relation: str
    about: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that atlas is asked about."""

    countries: Mapping[str, Country]
    lookalikes: tuple[tuple[str, ...], ...]
    elements: Mapping[str, Element]
    conversions: tuple[Conversion, ...]
    amounts: Mapping[str, Mapping[str, tuple[int, ...]]]
    units: Mapping[str, Unit]
    largest_number: int

    @property
    def continents(self) -> list[str]:
        """The continents, sorted."""
        return sorted({country.continent for country in self.countries.values()})


def load_world(path: Path) -> World:
    """Read world.yaml. Raises KeyError or TypeError naming the field where the file does not have its shape."""
    raw = YAML(typ="safe").load(path.read_text())
    countries = [Country(**_frozen(row)) for row in raw["countries"]]
    elements = [Element(**_frozen(row)) for row in raw["elements"]]
    units = [Unit(name, **_frozen(row)) for name, row in raw["units"].items()]
    return World(
        countries={country.name: country for country in countries},
        lookalikes=tuple(tuple(group) for group in raw["lookalikes"]),
        elements={element.name: element for element in elements},
        conversions=tuple(Conversion(**row) for row in raw["conversions"]),
        amounts={kind: {way: tuple(n) for way, n in ways.items()} for kind, ways in raw["amounts"].items()},
        units={unit.name: unit for unit in units},
        largest_number=raw["largest_number"],
    )


def _frozen(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def facts(world: World) -> Iterator[Fact]:
    """Yield every fact that can be asked; pairs of countries, and of countries with continents, in full."""
    for name, country in world.countries.items():
        for relation in ("capital", "currency", "continent", "language", "neighbours", "describe"):
            yield Fact(relation, (name,))
        yield Fact("capital_of", (country.capital,))
        for continent in world.continents:
            yield Fact("in_continent", (name, continent))
            yield Fact("not_in_continent", (name, continent))
        for other in world.countries:
            if other != name:
                yield Fact("borders", (name, other))
                yield Fact("borders_not", (name, other))
    for element in world.elements.values():
        yield Fact("symbol", (element.name,))
        yield Fact("number", (element.name,))
        yield Fact("element_by_symbol", (element.symbol,))
        yield Fact("element_by_number", (str(element.number),))
    yield from _calculations(world)


def _calculations(world: World) -> Iterator[Fact]:
    for conversion in world.conversions:
        amounts = world.amounts[conversion.kind]
        scale = conversion.factor if conversion.kind == "time" else 1
        for amount in amounts["down"]:
            yield Fact("convert", (str(amount), conversion.large, conversion.small))
        for amount in amounts["up"]:
            yield Fact("convert", (str(amount * scale), conversion.small, conversion.large))
    for a in range(world.largest_number + 1):
        for b in range(a + 1):
            yield Fact("sum", (str(a - b), str(b)))
            yield Fact("difference", (str(a), str(b)))


def plural(unit: str) -> str:
    """Return the plural of a unit's name or spelling."""
    return f"{unit}s"
