"""Draws pairs of questions to train a verifier on, from the grammar and from real questions of known intent.

A pair is positive where one answer serves both. Every kind of negative that people and adversaries make is drawn:
another question of the same things, other things in the same question, exchanged roles, opposites, restrictions,
other numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from scripts.pairs import noise
from scripts.pairs.grammar import Cluster, Grammar, Line, draw_values, expanded, fill, framed

Spoiler = Callable[[str, Random], str | None]
# How negatives are made of any question.
SPOILERS: Mapping[str, Spoiler] = {
    "turned": noise.turned,
    "swapped": noise.swapped,
    "dropped": noise.dropped,
    "qualified": noise.qualified,
    "renumbered": noise.renumbered,
}


@dataclass(frozen=True, slots=True)
class Lesson:
    """A pair to learn from, and how it was made."""

    a: str
    b: str
    same: bool
    kind: str


class Lessons:
    """Draws lessons with one generator; the same seed gives the same lessons."""

    def __init__(self, grammar: Grammar, seed: int) -> None:
        self._grammar = grammar
        self._rng = Random(seed)

    def draw(self, rounds: int) -> Iterator[Lesson]:
        """Yield the lessons of so many rounds; a round has some 50, on a dozen related texts."""
        rng = self._rng
        for _ in range(rounds):
            way = rng.random()
            if way < 0.48:
                lessons = self._family(rng.choices(self._grammar.families, [len(f) for f in self._grammar.families])[0])
            elif way < 0.68:
                lessons = self._family(expanded(rng.choice(self._grammar.patterns), self._grammar.words, rng))
            elif way < 0.87:
                lessons = self._cluster(rng.choice(self._grammar.clusters))
            elif way < 0.95:
                lessons = self._framed(self._grammar.doing, rng.choice(self._grammar.phrases))
            else:
                lessons = self._framed(self._grammar.being, rng.choice(self._grammar.things))
            yield from (each for each in lessons if each.a.lower() != each.b.lower())

    def _family(self, block: Sequence[Line]) -> Iterator[Lesson]:
        rng = self._rng
        lines = rng.sample(block, min(3, len(block)))
        names = sorted({name for line in lines for name in line.slots})
        values = draw_values(names, self._grammar.slots, rng)
        said = [self._said(line, values) for line in lines]
        for line, texts in zip(lines, said, strict=True):
            yield from self._same(texts, "wording")
            yield from self._varied(line, values, texts)
            yield from self._turned_round(texts)
            yield from self._spoilt(texts)
        for one, other in combinations(said, 2):
            for _ in range(3):
                yield Lesson(rng.choice(one), rng.choice(other), same=False, kind="other question")

    def _said(self, line: Line, values: Mapping[str, str]) -> list[str]:
        count = min(len(line.wordings), self._rng.choice((2, 3, 3, 4)))
        texts = [fill(wording, values) for wording in self._rng.sample(line.wordings, count)]
        return [noise.worded(text, self._rng) for text in texts]

    def _varied(self, line: Line, values: Mapping[str, str], texts: Sequence[str]) -> Iterator[Lesson]:
        """Yield pairs with other values in the slots, or the same ones in each other's place."""
        rng = self._rng
        if line.slots:
            name = rng.choice(line.slots)
            kind = name.rstrip("0123456789")
            other = rng.choice([each for each in self._grammar.slots[kind] if each not in values.values()])
            text = noise.worded(fill(rng.choice(line.wordings), {**values, name: other}), rng)
            for each in rng.sample(texts, min(2, len(texts))):
                yield Lesson(each, text, same=False, kind=f"other {kind}")
        kinds = Counter(name.rstrip("0123456789") for name in line.slots)
        twice = [kind for kind, count in kinds.items() if count > 1]
        if twice:
            kind = rng.choice(twice)
            x, y = rng.sample([name for name in line.slots if name.rstrip("0123456789") == kind], 2)
            exchanged = {**values, x: values[y], y: values[x]}
            made = [fill(wording, exchanged) for wording in rng.sample(line.wordings, min(3, len(line.wordings)))]
            texts_exchanged = [noise.worded(text, rng, 0.5) for text in made]
            for each in texts_exchanged:
                for text in rng.sample(texts, min(2, len(texts))):
                    yield Lesson(text, each, same=line.is_symmetric(x, y), kind="exchanged")
            yield from self._same(texts_exchanged, "wording")

    def _turned_round(self, texts: Sequence[str]) -> Iterator[Lesson]:
        """Yield pairs of which one is only in another order, and stays the same question."""
        for way in (noise.fronted, noise.conjoined):
            text = self._rng.choice(texts)
            turned = way(text, self._rng)
            if turned is not None:
                yield Lesson(text, turned, same=True, kind="turned round")

    def _spoilt(self, texts: Sequence[str]) -> Iterator[Lesson]:
        rng = self._rng
        text = rng.choice(texts)
        mates = [text, *(each for each in texts if each != text)][:2]
        name = rng.choice(list(SPOILERS))
        spoilt = SPOILERS[name](text, rng)
        if spoilt is not None:
            for mate in mates:
                yield Lesson(mate, spoilt, same=False, kind=name)
        if rng.random() < 0.5:
            template, end = noise.restricted(text, rng)
            names = Line((template[len(text.rstrip("?.")) :],)).slots
            narrowed = (
                text.rstrip("?.") + fill_tail(template[len(text.rstrip("?.")) :], names, self._grammar, rng) + end
            )
            for mate in mates:
                yield Lesson(mate, narrowed, same=False, kind="restricted")
            if len(texts) > 1:
                other = noise.worded(mates[-1].rstrip("?.") + narrowed[len(text.rstrip("?.")) :], rng, 0.5)
                yield Lesson(narrowed, other, same=True, kind="restricted alike")
            yield from self._turned_round([narrowed])

    def _cluster(self, cluster: Cluster) -> Iterator[Lesson]:
        rng = self._rng
        texts = [noise.worded(text, rng, 1.5) for text in cluster.wordings]
        others = [noise.worded(text, rng, 1.2) for text in cluster.others]
        yield from self._same(texts, "cluster")
        yield from self._turned_round(texts)
        for other in others:
            for text in rng.sample(texts, min(2, len(texts))):
                yield Lesson(text, other, same=False, kind="look-alike")
        for one, other in combinations(others, 2):
            yield Lesson(one, other, same=False, kind="look-alike")
        yield Lesson(
            rng.choice(cluster.wordings), noise.worded(rng.choice(cluster.wordings), rng, 2), same=True, kind="typed"
        )
        yield from self._spoilt(texts)

    def _framed(self, frames: Sequence[Line], phrase: Cluster) -> Iterator[Lesson]:
        rng = self._rng
        first, *rest = rng.sample(frames, 3)
        said = []
        for line in (first, *rest):
            chosen = rng.sample(line.wordings, min(3, len(line.wordings)))
            texts = [framed(frame, rng.choice(phrase.wordings)) for frame in chosen]
            said.append([noise.worded(text, rng) for text in texts])
            yield from self._same(said[-1], "frame")
        for one, other in combinations(said, 2):
            for _ in range(2):
                yield Lesson(rng.choice(one), rng.choice(other), same=False, kind="other frame")
        for other in phrase.others:
            text = noise.worded(framed(rng.choice(first.wordings), other), rng)
            for mate in rng.sample(said[0], min(2, len(said[0]))):
                yield Lesson(mate, text, same=False, kind="other phrase")
        yield from self._spoilt(said[0])

    def _same(self, texts: Sequence[str], kind: str) -> Iterator[Lesson]:
        for one, other in combinations(texts, 2):
            yield Lesson(one, other, same=True, kind=kind)


def fill_tail(template: str, names: Sequence[str], grammar: Grammar, rng: Random) -> str:
    """Put drawn values in the slots of the end of a text, which gets no capital."""
    values = draw_values(names, grammar.slots, rng)
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template
