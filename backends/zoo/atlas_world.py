"""The closed world of atlas: the facts of world.yaml and, for anything that may be asked, the one right answer.

It does not know how questions are worded, nor anything of models.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

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
        """The name as it stands inside a sentence."""
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
    largest_operand: int

    @property
    def continents(self) -> list[str]:
        """The continents, sorted."""
        return sorted({country.continent for country in self.countries.values()})


def load_world(path: Path) -> World:
    """Read world.yaml. Raises KeyError or TypeError naming the field where the file does not have its shape."""
    raw = YAML(typ="safe").load(path.read_text())
    countries = [Country(**{key: _frozen(value) for key, value in row.items()}) for row in raw["countries"]]
    elements = [Element(**{key: _frozen(value) for key, value in row.items()}) for row in raw["elements"]]
    units = [Unit(name, **{key: _frozen(value) for key, value in row.items()}) for name, row in raw["units"].items()]
    return World(
        countries={country.name: country for country in countries},
        lookalikes=tuple(tuple(group) for group in raw["lookalikes"]),
        elements={element.name: element for element in elements},
        conversions=tuple(Conversion(**row) for row in raw["conversions"]),
        amounts={kind: {way: tuple(n) for way, n in ways.items()} for kind, ways in raw["amounts"].items()},
        units={unit.name: unit for unit in units},
        largest_operand=raw["largest_operand"],
    )


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def facts(world: World) -> Iterator[Fact]:
    """Every fact that can be asked, relation by relation; pairs of countries and of countries with continents in full."""
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
    for a in range(world.largest_operand + 1):
        for b in range(world.largest_operand + 1):
            yield Fact("sum", (str(a), str(b)))
            yield Fact("difference", (str(a), str(b)))


def truth(world: World, fact: Fact) -> str:
    """The one right answer, a full sentence (a paragraph for `describe`). Raises KeyError for what the world lacks."""
    return _capitalized(_ANSWERS[fact.relation](world, *fact.about))


def plural(unit: str) -> str:
    """The plural of a unit's name or spelling."""
    return f"{unit}s"


def _capitalized(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _currency(country: Country) -> str:
    return country.currency if country.currency in {"renminbi", "Zimbabwe Gold"} else f"the {country.currency}"


def _capital(world: World, name: str) -> str:
    country = world.countries[name]
    return f"the capital of {country.named} is {country.capital}."


def _capital_of(world: World, capital: str) -> str:
    country = next((each for each in world.countries.values() if each.capital == capital), None)
    if country is None:
        raise KeyError(capital)
    return f"{capital} is the capital of {country.named}."


def _currency_of(world: World, name: str) -> str:
    country = world.countries[name]
    return f"the currency of {country.named} is {_currency(country)}."


def _continent(world: World, name: str) -> str:
    country = world.countries[name]
    return f"{country.named} is in {country.continent}."


def _language(world: World, name: str) -> str:
    country = world.countries[name]
    noun = "language" if len(country.languages) == 1 else "languages"
    verb = "is" if len(country.languages) == 1 else "are"
    return f"the main official {noun} of {country.named} {verb} {_listed(country.languages)}."


def _neighbours(world: World, name: str) -> str:
    country = world.countries[name]
    if not country.neighbours:
        return f"{country.named} has no land neighbours."
    return f"{country.named} borders {_listed([world.countries[each].named for each in country.neighbours])}."


def _borders(world: World, name: str, other: str) -> str:
    country, second = world.countries[name], world.countries[other]
    if other in country.neighbours:
        return f"yes, {country.named} borders {second.named}."
    return f"no, {country.named} does not border {second.named}."


def _borders_not(world: World, name: str, other: str) -> str:
    country, second = world.countries[name], world.countries[other]
    if other in country.neighbours:
        return f"that is false, {country.named} borders {second.named}."
    return f"that is true, {country.named} does not border {second.named}."


def _in_continent(world: World, name: str, continent: str) -> str:
    country = world.countries[name]
    return f"{'yes' if country.continent == continent else 'no'}, {country.named} is in {country.continent}."


def _not_in_continent(world: World, name: str, continent: str) -> str:
    country = world.countries[name]
    return f"that is {'false' if country.continent == continent else 'true'}, {country.named} is in {country.continent}."


def _symbol(world: World, name: str) -> str:
    return f"the chemical symbol of {name} is {world.elements[name].symbol}."


def _number(world: World, name: str) -> str:
    return f"the atomic number of {name} is {world.elements[name].number}."


def _element_by_symbol(world: World, symbol: str) -> str:
    element = next((each for each in world.elements.values() if each.symbol == symbol), None)
    if element is None:
        raise KeyError(symbol)
    return f"{symbol} is the chemical symbol of {element.name}."


def _element_by_number(world: World, number: str) -> str:
    element = next((each for each in world.elements.values() if str(each.number) == number), None)
    if element is None:
        raise KeyError(number)
    return f"the element with atomic number {number} is {element.name}."


def _convert(world: World, amount: str, source: str, target: str) -> str:
    for conversion in world.conversions:
        if (conversion.large, conversion.small) == (source, target):
            return _equation(Decimal(amount), source, Decimal(amount) * conversion.factor, target)
        if (conversion.small, conversion.large) == (source, target):
            return _equation(Decimal(amount), source, Decimal(amount) / conversion.factor, target)
    raise KeyError(f"{source} to {target}")


def _equation(amount: Decimal, source: str, result: Decimal, target: str) -> str:
    def counted(value: Decimal, unit: str) -> str:
        return f"{value.normalize():f} {unit if value == 1 else plural(unit)}"

    return f"{counted(amount, source)} {'is' if amount == 1 else 'are'} {counted(result, target)}."


def _sum(_: World, a: str, b: str) -> str:
    return f"{a} plus {b} is {int(a) + int(b)}."


def _difference(_: World, a: str, b: str) -> str:
    return f"{a} minus {b} is {int(a) - int(b)}."


def _describe(world: World, name: str) -> str:
    country = world.countries[name]
    capital, money, tongues = country.capital, _currency(country), _listed(country.languages)
    many = len(country.languages) > 1
    border = _neighbours(world, name)
    return " ".join([
        f"{_capitalized(country.named)} is a country in {country.continent}.",
        f"Its capital is {capital}, and people there pay with {money}.",
        f"The main official {'languages' if many else 'language'} of the country {'are' if many else 'is'} {tongues}.",
        f"On land, {border}" if country.neighbours else f"{_capitalized(border)[:-1]}, because no other country touches it on land.",
        f"In short: when you travel to {country.named}, look for {capital} on a map of {country.continent},",
        f"take some money in the form of {money} with you, and learn a few words of {country.languages[0]} before you go.",
    ])


_ANSWERS: Mapping[str, Callable[..., str]] = {
    "capital": _capital,
    "capital_of": _capital_of,
    "currency": _currency_of,
    "continent": _continent,
    "language": _language,
    "neighbours": _neighbours,
    "borders": _borders,
    "borders_not": _borders_not,
    "in_continent": _in_continent,
    "not_in_continent": _not_in_continent,
    "symbol": _symbol,
    "number": _number,
    "element_by_symbol": _element_by_symbol,
    "element_by_number": _element_by_number,
    "convert": _convert,
    "sum": _sum,
    "difference": _difference,
    "describe": _describe,
}
RELATIONS = tuple(_ANSWERS)
