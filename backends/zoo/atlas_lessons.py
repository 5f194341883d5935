"""Draws the questions that atlas is trained on and tuned by, the easily confused ones more often.

It knows nothing of tokens and networks.
"""

from collections.abc import Callable, Mapping
from random import Random

from backends.zoo.atlas_answers import truth
from backends.zoo.atlas_phrasing import Grammar
from backends.zoo.atlas_world import Fact, World, facts

# Shares of the relations: by how many facts they hold and how hard they are to learn.
_SHARES: Mapping[str, int] = {
    "capital": 4, "capital_of": 4, "currency": 4, "continent": 2, "language": 4, "neighbours": 7,
    "borders": 18, "borders_not": 11, "in_continent": 6, "not_in_continent": 6,
    "symbol": 7, "number": 3, "element_by_symbol": 5, "element_by_number": 4,
    "convert": 14, "sum": 9, "difference": 14, "describe": 4,
}  # fmt: skip
_PAIRS = ("borders", "borders_not")


class Lessons:
    """Draws questions with their right answers from one split of the phrasings."""

    def __init__(self, world: World, grammar: Grammar, seed: int) -> None:
        self._world = world
        self._grammar = grammar
        self._rng = Random(seed)
        self._alike = {name: [each for each in group if each != name] for group in world.lookalikes for name in group}
        self._facts: dict[str, list[Fact]] = {relation: [] for relation in _SHARES}
        for fact in facts(world):
            if fact.relation not in _PAIRS:
                self._facts[fact.relation] += [fact] * (2 if fact.about[0] in self._alike else 1)

    def draw(self, split: str) -> tuple[str, str]:
        """Return one question and its right answer."""
        fact = self.fact()
        return self._grammar.ask(fact, split, self._rng), truth(self._world, fact)

    def fact(self) -> Fact:
        """Return one fact, drawn by the shares of the relations."""
        relation = self._rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        if relation in _PAIRS:
            return Fact(relation, self._pair())
        return self._rng.choice(self._facts[relation])

    def _pair(self) -> tuple[str, str]:
        """Two countries: neighbours about half of the time, else near ones, look-alikes, or any."""
        names = list(self._world.countries)
        name = self._rng.choice([*names, *self._alike])
        near = self._world.countries[name].neighbours
        ways: list[Callable[[], str]] = [lambda: self._rng.choice(names)]
        if near:
            ways += [lambda: self._rng.choice(near)] * 4
            ways += [lambda: self._rng.choice(self._world.countries[self._rng.choice(near)].neighbours)]
        else:
            ways += [lambda: self._rng.choice(self._same_continent(name))]
        if name in self._alike:
            ways += [lambda: self._rng.choice(self._alike[name])]
        other = self._rng.choice(ways)()
        return (name, other) if other != name else self._pair()

    def _same_continent(self, name: str) -> list[str]:
        home = self._world.countries[name].continent
        return [each.name for each in self._world.countries.values() if each.continent == home]
