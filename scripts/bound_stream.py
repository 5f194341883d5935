"""A long stream of questions whose right answers are known: facts of a world, in other words, and near-misses."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from backends.zoo.atlas_answers import truth
from backends.zoo.atlas_phrasing import Grammar
from backends.zoo.atlas_world import Fact, World, facts, load_world
from scripts.running_gateway import ROOT
from scripts.world_upstream import Truth

SOURCE = ROOT / "models" / "atlas"


@dataclass(frozen=True, slots=True)
class Mix:
    """What a phase asks: its relations, and which shares of its requests are of which kind; the rest is new."""

    relations: tuple[str, ...]
    repeat: float
    paraphrase: float
    near_miss: float


BEFORE = Mix(("capital", "currency", "language", "symbol", "number", "continent"), 0.2, 0.55, 0.1)
AFTER = Mix(("capital", "capital_of", "borders", "in_continent", "element_by_symbol", "convert", "sum"), 0.1, 0.4, 0.35)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the stream."""

    text: str
    kind: str
    right: str
    phase: int


@dataclass(slots=True)
class Stream:
    """Draws the requests of one phase after the other, remembering what was asked.

    In the second phase another answer is right to a part `changed` of the facts.
    """

    world: World
    grammar: Grammar
    rng: Random
    split: str
    changed: float = 0.0
    asked: list[tuple[Fact, str]] = field(default_factory=list)

    def phase(self, mix: Mix, number: int) -> Iterator[Asked]:
        """Yield requests of a phase for ever."""
        pool = [fact for fact in facts(self.world) if fact.relation in mix.relations]
        by_relation: defaultdict[str, list[Fact]] = defaultdict(list)
        for fact in pool:
            by_relation[fact.relation].append(fact)
        while True:
            kind, fact, text = self._draw(mix, by_relation)
            self.asked.append((fact, text))
            yield Asked(text, kind, self.right(fact, number), number)

    def right(self, fact: Fact, phase: int) -> str:
        """Return the answer that is right in a phase."""
        right = truth(self.world, fact)
        if phase > 1 and Random(f"{fact}").random() < self.changed:
            return f"Since the reform: {right}"
        return right

    def truths(self) -> Truth:
        """Return the right answers to all that was drawn."""
        return Truth(*({text: self.right(fact, phase) for fact, text in self.asked} for phase in (1, 2)))

    def _draw(self, mix: Mix, by_relation: Mapping[str, Sequence[Fact]]) -> tuple[str, Fact, str]:
        chance, rng = self.rng.random(), self.rng
        known = self.asked[-4000:]
        if known and chance < mix.repeat:
            fact, text = rng.choice(known)
            return "repeat", fact, text
        if known and chance < mix.repeat + mix.paraphrase:
            fact = rng.choice(known)[0]
            return "paraphrase", fact, self._word(fact)
        if known and chance < mix.repeat + mix.paraphrase + mix.near_miss:
            fact = self._near(rng.choice(known)[0], by_relation)
            return "near-miss", fact, self._word(fact)
        fact = rng.choice(by_relation[rng.choice([*by_relation])])
        return "new", fact, self._word(fact)

    def _near(self, fact: Fact, by_relation: Mapping[str, Sequence[Fact]]) -> Fact:
        """Return a fact that differs in the relation, or in what it is about."""
        others = [
            other
            for relation in by_relation
            if relation != fact.relation
            for other in by_relation[relation]
            if other.about == fact.about
        ]
        if others and self.rng.random() < 0.5:
            return self.rng.choice(others)
        same = by_relation.get(fact.relation) or by_relation[self.rng.choice([*by_relation])]
        alike = [other for other in same if other.about[0][:2] == fact.about[0][:2] and other != fact]
        return self.rng.choice(alike or same)

    def _word(self, fact: Fact) -> str:
        return self.grammar.ask(fact, self.split, self.rng)


def stream_of(count: int, seed: int, split: str, changed: float) -> tuple[list[Asked], Truth]:
    """Draw the whole stream, one half of each mix, and the answers to it."""
    world = load_world(SOURCE / "world.yaml")
    drawn = Stream(world, Grammar(world, SOURCE / "phrasings.yaml"), Random(seed), split, changed)
    before = list(islice(drawn.phase(BEFORE, 1), count // 2))
    after = list(islice(drawn.phase(AFTER, 2), count - count // 2))
    return before + after, drawn.truths()
