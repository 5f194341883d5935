"""Measure how often atlas answers exactly right, on held-back phrasings of every relation and on the replay lists."""

import argparse
import json
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime
from rich.console import Console
from rich.progress import track
from rich.table import Table
from ruamel.yaml import YAML
from tokenizers import Tokenizer

from backends.zoo import atlas
from backends.zoo.atlas_answers import RELATIONS, truth
from backends.zoo.atlas_phrasing import Grammar
from backends.zoo.atlas_world import Fact, World, facts, load_world

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "models" / "atlas"
REPLAYS = sorted((ROOT / "scripts" / "data").glob("replay*.jsonl"))
ROWS, SHOWN_MISTAKES = 32, 12


class Atlas:
    """The model of a directory, decoding many questions at once, always with the likeliest token."""

    def __init__(self, directory: Path) -> None:
        settings = YAML(typ="safe").load((directory / "model.yaml").read_text())
        self._prompt: str = settings["prompt"]["question"]
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._stop = self._tokenizer.token_to_id(settings["prompt"]["stop"])
        self._session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._slots = {
            each.name: np.zeros((ROWS, *each.shape[1:]), np.float32)
            for each in self._session.get_inputs()
            if each.name.startswith(("past_key.", "past_value."))
        }
        self._context: int = settings["limits"]["max_tokens"]

    def answers(self, questions: list[str]) -> list[str]:
        """One answer for each question."""
        given: list[str] = []
        for start in track(range(0, len(questions), ROWS), "answering", transient=True):
            given += self._batch(questions[start : start + ROWS])
        return given

    def _batch(self, questions: list[str]) -> list[str]:
        prompts = [self._tokenizer.encode(self._prompt.replace("{text}", question)).ids for question in questions]
        lengths = np.zeros(len(prompts), np.int64)
        pieces = [np.array(prompt, np.int64) for prompt in prompts]
        written: list[list[int]] = [[] for _ in prompts]
        while any(self._stop not in row for row in written) and lengths.max() + max(map(len, pieces)) < self._context:
            tokens = self._step(pieces, lengths)
            lengths += [len(piece) for piece in pieces]
            for row, token in zip(written, tokens, strict=True):
                row.append(int(token))
            pieces = [np.array([token]) for token in tokens]
        return [self._tokenizer.decode(row[: row.index(self._stop)] if self._stop in row else row) for row in written]

    def _step(self, pieces: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
        ids = np.zeros((len(pieces), max(map(len, pieces))), np.int64)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece)] = piece
        slots = {name: slot[: len(pieces)] for name, slot in self._slots.items()}
        outputs = self._session.run(None, {"ids": ids, "past_length": lengths, **slots})
        results = dict(zip(self._outputs, outputs, strict=True))
        for name, slot in slots.items():
            new = results[name.replace("past", "new")]
            for row, piece in enumerate(pieces):
                slot[row, :, lengths[row] : lengths[row] + len(piece)] = new[row, :, : len(piece)]
        return results["logits"][np.arange(len(pieces)), [len(piece) - 1 for piece in pieces]].argmax(-1)


def asked_of(world: World, relation: str, count: int, rng: Random) -> list[Fact]:
    """Facts of a relation: all of them where they are few, else a sample; of pairs of countries half are neighbours."""
    found = [fact for fact in facts(world) if fact.relation == relation]
    if relation in {"borders", "borders_not"}:
        near = [fact for fact in found if fact.about[1] in world.countries[fact.about[0]].neighbours]
        return rng.sample(near, count // 2) + rng.sample(found, count // 2)
    return rng.sample(found, min(count, len(found)))


def main() -> None:
    """Ask, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="questions for each relation, at most")
    parser.add_argument("--split", default="test", help="phrasings to use: test, dev or train")
    parser.add_argument("--source", type=Path, default=SOURCE, help="directory of the weights")
    arguments = parser.parse_args()
    world = load_world(SOURCE / "world.yaml")
    grammar, rng, console = Grammar(world, SOURCE / "phrasings.yaml"), Random(7), Console()
    table = Table("asked", "questions", "exactly right", title=f"atlas, {arguments.split} phrasings")
    mistakes: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as directory:
        atlas.build(arguments.source, Path(directory))
        model = Atlas(Path(directory))

    def ask(name: str, questions: list[str], answers: list[str]) -> int:
        given = model.answers(questions)
        wrong = [each for each in zip(questions, given, answers, strict=True) if each[1] != each[2]]
        mistakes.extend(wrong)
        table.add_row(name, str(len(questions)), f"{1 - len(wrong) / len(questions):.1%}")
        return len(questions) - len(wrong)

    right = asked = 0
    for relation in RELATIONS:
        chosen = asked_of(world, relation, arguments.count, rng)
        questions = [grammar.ask(fact, arguments.split, rng) for fact in chosen]
        right += ask(relation, questions, [truth(world, fact) for fact in chosen])
        asked += len(chosen)
    table.add_row("all relations", str(asked), f"{right / asked:.1%}", style="bold", end_section=True)
    for path in REPLAYS:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        ask(path.name, [line["question"] for line in lines], [line["answer"] for line in lines])
    console.print(table)
    for question, given, answer in Random(1).sample(mistakes, min(SHOWN_MISTAKES, len(mistakes))):
        console.print(f"[dim]asked[/] {question}\n[dim]  said[/] {given}\n[dim] right[/] {answer}", highlight=False)


if __name__ == "__main__":
    main()
