"""Computes the one right answer to anything that atlas may be asked. It does not know how questions are worded."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from backends.zoo.atlas_world import Country, Fact, World, plural


def _capitalized(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _listed(words: Sequence[str]) -> str:
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
    verdict = "false" if country.continent == continent else "true"
    return f"that is {verdict}, {country.named} is in {country.continent}."


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
    official = "official languages of the country are" if many else "official language of the country is"
    border = _neighbours(world, name)
    if country.neighbours:
        surroundings = f"On land, {border}"
    else:
        surroundings = f"{_capitalized(border)[:-1]}, because no other country touches it on land."
    sentences = [
        f"{country.named} is a country in {country.continent}.",
        f"Its capital is {capital}, and people there pay with {money}.",
        f"The main {official} {tongues}.",
        surroundings,
        f"In short: when you travel to {country.named}, look for {capital} on a map of {country.continent},",
        f"take some money in the form of {money} with you,",
        f"and learn a few words of {country.languages[0]} before you go.",
    ]
    return " ".join(sentences)


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


def truth(world: World, fact: Fact) -> str:
    """Return the one right answer, a full sentence (a paragraph for `describe`).

    Raises KeyError for what the world lacks.
    """
    return _capitalized(_ANSWERS[fact.relation](world, *fact.about))
