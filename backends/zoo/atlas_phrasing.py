"""Words the facts of atlas as questions, from the grammar of phrasings.yaml and with the sloppiness of real users.

A grammar is split by phrasing into `train`, `dev` and `test`; it does not know the answers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

from ruamel.yaml import YAML

from backends.zoo.atlas_world import Fact, World, plural

# How often a question comes without its mark, with words before it, with words after it, and without capitals.
_UNMARKED, _BEFORE, _AFTER, _LOWER = 0.25, 0.15, 0.08, 0.3
# How often a training question is garbled, and how often then an optional word goes and a filler comes after a word.
_GARBLED, _GONE, _FILLED = 0.5, 0.25, 0.12
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


class Grammar:
    """The phrasings of every relation; `ask` words a fact by one of a split's phrasings."""

    def __init__(self, world: World, path: Path) -> None:
        raw = YAML(typ="safe").load(path.read_text())
        self._world = world
        self._decoration: Mapping[str, Mapping[str, list[str]]] = raw.pop("decoration")
        self._noise: Mapping[str, list[str]] = raw.pop("noise")
        self.phrasings: Mapping[str, Mapping[str, list[str]]] = raw

    def ask(self, fact: Fact, split: str, rng: Random) -> str:
        """Return one question for the fact, drawn with the given generator."""
        template = rng.choice(self.phrasings[fact.relation][split])
        question = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), template)
        if split == "train" and rng.random() < _GARBLED:
            question = self._garbled(question, rng)
        for slot, forms in self._forms(fact, rng).items():
            question = question.replace(f"{{{slot}}}", rng.choice(forms))
        return self._sloppy(" ".join(question.split()), split, rng)

    def _garbled(self, question: str, rng: Random) -> str:
        words = []
        for word in question.split():
            if word not in self._noise["optional"] or rng.random() >= _GONE:
                words.append(word)
            if rng.random() < _FILLED and not word.endswith(("?", ".", ":")):
                words.append(rng.choice(self._noise["fillers"]))
        return " ".join(words)

    def _sloppy(self, question: str, split: str, rng: Random) -> str:
        decoration = self._decoration[split]
        if rng.random() < _UNMARKED:
            question = question.rstrip("?.")
        if rng.random() < _BEFORE:
            question = rng.choice(decoration["before"]) + question
        if rng.random() < _AFTER:
            question = question.rstrip("?.") + rng.choice(decoration["after"])
        if rng.random() < _LOWER:
            return question.lower()
        return question[0].upper() + question[1:]

    def _forms(self, fact: Fact, rng: Random) -> Mapping[str, list[str]]:
        relation, about = fact.relation, fact.about
        if relation in {"sum", "difference"}:
            return {"a": [about[0]], "b": [about[1]]}
        if relation == "convert":
            return self._quantities(about, rng)
        if relation in {"symbol", "number"}:
            return {"element": [about[0], about[0], *self._world.elements[about[0]].aliases]}
        if relation in {"capital_of", "element_by_symbol", "element_by_number"}:
            slot = {"capital_of": "capital", "element_by_symbol": "symbol", "element_by_number": "number"}[relation]
            return {slot: [about[0]]}
        if relation in {"in_continent", "not_in_continent"}:
            return {"country": self._names(about[0]), "continent": [about[1]]}
        return dict(zip(("country", "other"), map(self._names, about), strict=False))

    def _names(self, name: str) -> list[str]:
        """Usual forms of a country's name more than once, so that they are drawn more often."""
        country = self._world.countries[name]
        bare = [] if not country.article else [country.name]
        return [country.named] * 3 + bare + list(country.aliases)

    def _quantities(self, about: tuple[str, ...], rng: Random) -> Mapping[str, list[str]]:
        amount, source, target = about
        unit, other = self._world.units[source], self._world.units[target]
        noun = rng.choice([unit.name, unit.name, *unit.spellings])
        named = f"{amount} {noun if amount == '1' else plural(noun)}"
        short = [f"{amount} {unit.short}", f"{amount}{unit.short}"] if unit.short else []
        targets = [plural(other.name), plural(other.name), *map(plural, other.spellings)]
        return {
            "quantity": [named, named, *short],
            "targets": targets,
            "target": [*targets, other.short] if other.short else targets,
        }
