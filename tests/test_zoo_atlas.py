"""The world of atlas is consistent, its phrasings are split, and its graph gives the same however tokens are fed."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime
import pytest

from backends.zoo import atlas
from backends.zoo.atlas_answers import RELATIONS, truth
from backends.zoo.atlas_phrasing import Grammar
from backends.zoo.atlas_world import Fact, facts, load_world

SPLITS = ("train", "dev", "test")
ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "models" / "atlas"
REPLAYS = {name: ROOT / "scripts" / "data" / f"{name}.jsonl" for name in ("replay", "replay-dev")}


@pytest.fixture(scope="module")
def world():
    """Give the facts of atlas."""
    return load_world(SOURCE / "world.yaml")


def replay(name):
    """Read the lines of a replay list."""
    return [json.loads(line) for line in REPLAYS[name].read_text().splitlines()]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Load the graph of atlas."""
    if not (SOURCE / "weights.npz").exists():
        pytest.skip("models/atlas/weights.npz is missing: run scripts/train_atlas.py")
    target = tmp_path_factory.mktemp("atlas")
    atlas.build(SOURCE, target)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(target / "model.onnx", options, providers=["CPUExecutionProvider"])


def empty_slots(session, rows: int, fill: float = 0.0) -> dict[str, np.ndarray]:
    """Make a cache of `rows` slots, every place of it set to `fill`."""
    inputs = [each for each in session.get_inputs() if each.name.startswith("past_") and each.name != "past_length"]
    return {each.name: np.full((rows, *each.shape[1:]), fill, np.float32) for each in inputs}


def forward(session, slots, ids, past_length):
    """Run the graph, write the new keys and values into the slots and return the logits."""
    feeds = {"ids": np.array(ids, np.int64), "past_length": np.array(past_length, np.int64)}
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, session.run(None, feeds | slots), strict=True))
    for name, slot in slots.items():
        for row, start in enumerate(past_length):
            new = results[name.replace("past", "new")][row]
            slot[row, :, start : start + new.shape[1]] = new
    return results["logits"]


def test_neighbours_hold_both_ways(world):
    """Whoever borders a country is bordered by it, and nobody borders itself."""
    for country in world.countries.values():
        assert country.name not in country.neighbours
        for other in country.neighbours:
            assert country.name in world.countries[other].neighbours, f"{other} lacks {country.name}"


def test_every_country_has_every_fact(world):
    """All 195 countries have a capital of their own, a currency, a language and one of six continents."""
    countries = list(world.countries.values())
    assert len(countries) == 195
    assert all(each.capital and each.currency and each.languages for each in countries)
    assert len({each.capital for each in countries}) == 195
    assert len(world.continents) == 6
    assert {name for group in world.lookalikes for name in group} <= world.countries.keys()


def test_elements_are_complete(world):
    """The elements are numbered 1 to 118 in order, each with a symbol of its own."""
    assert [element.number for element in world.elements.values()] == list(range(1, 119))
    assert len({element.symbol for element in world.elements.values()}) == 118


@pytest.mark.parametrize(
    ("relation", "about", "answer"),
    [
        ("capital", ["Netherlands"], "The capital of the Netherlands is Amsterdam."),
        ("language", ["Belgium"], "The main official languages of Belgium are Dutch, French and German."),
        (
            "neighbours",
            ["Chad"],
            "Chad borders Cameroon, the Central African Republic, Libya, Niger, Nigeria and Sudan.",
        ),
        ("neighbours", ["Australia"], "Australia has no land neighbours."),
        ("borders", ["Austria", "Italy"], "Yes, Austria borders Italy."),
        ("borders", ["Australia", "Italy"], "No, Australia does not border Italy."),
        ("borders_not", ["Austria", "Italy"], "That is false, Austria borders Italy."),
        ("not_in_continent", ["Austria", "Asia"], "That is true, Austria is in Europe."),
        ("convert", ["5", "kilometre", "metre"], "5 kilometres are 5000 metres."),
        ("convert", ["5", "metre", "kilometre"], "5 metres are 0.005 kilometres."),
        ("convert", ["1000", "gram", "kilogram"], "1000 grams are 1 kilogram."),
        ("convert", ["1", "hour", "minute"], "1 hour is 60 minutes."),
        ("difference", ["17", "8"], "17 minus 8 is 9."),
    ],
)
def test_truth(world, relation, about, answer):
    """The right answer is computed from the facts."""
    assert truth(world, Fact(relation, tuple(about))) == answer


def test_descriptions_are_long(world):
    """A country is described in at least sixty words, so that streaming shows."""
    assert min(len(truth(world, Fact("describe", (name,))).split()) for name in world.countries) >= 60


def test_phrasings_are_split_cleanly(world):
    """Every relation has phrasings in every split, and none stands in two."""
    grammar = Grammar(world, SOURCE / "phrasings.yaml")
    assert grammar.phrasings.keys() == set(RELATIONS)
    for splits in grammar.phrasings.values():
        assert all(splits[split] for split in SPLITS)
        assert len({phrasing for split in SPLITS for phrasing in splits[split]}) == sum(map(len, splits.values()))


def test_every_question_is_worded(world):
    """No slot, bracket or choice of a phrasing is left in a question."""
    grammar, rng = Grammar(world, SOURCE / "phrasings.yaml"), Random(1)
    for fact in facts(world):
        if fact.relation not in {"borders", "borders_not"} or rng.random() < 0.01:
            assert not set("[]{}|") & set(grammar.ask(fact, rng.choice(SPLITS), rng))


@pytest.mark.parametrize("name", REPLAYS)
def test_replay_answers_are_right(world, name):
    """Every answer of a replay list is the one that the world computes for the line's fact."""
    for line in replay(name):
        relation, *about = line["fact"]
        assert line["answer"] == truth(world, Fact(relation, tuple(about)))


@pytest.mark.parametrize("name", REPLAYS)
def test_replay_kinds_hold(name):
    """A third is new, a third repeats; in other words, a paraphrase has its origin's answer and a near-miss has not."""
    lines = replay(name)
    counts = Counter(line["kind"] for line in lines)
    assert counts.keys() == {"new", "repeat", "paraphrase", "near_miss"}
    assert all(abs(counts[kind] - len(lines) / 3) < 1 for kind in ("new", "repeat"))
    for index, line in enumerate(lines):
        if line["kind"] == "new":
            assert line["of"] is None
            assert line["question"] not in {earlier["question"] for earlier in lines[:index]}
            continue
        assert line["of"] < index
        origin = lines[line["of"]]
        assert (line["question"] == origin["question"]) == (line["kind"] == "repeat")
        assert (line["answer"] != origin["answer"]) == (line["kind"] == "near_miss")


def test_replay_lists_are_apart():
    """What tunes thresholds asks for none of the facts and for none of the countries that the report is made of."""
    asked, tuned = ({tuple(line["fact"]) for line in replay(name)} for name in REPLAYS)
    assert not asked & tuned
    one_country = {"capital", "currency", "continent", "language", "neighbours", "describe", "borders", "in_continent"}
    first, second = ({about[0] for relation, *about in each if relation in one_country} for each in (asked, tuned))
    assert not first & second


def test_decoding_equals_prefill(session):
    """A prompt fed at once gives the logits that it gives token by token, and in two pieces."""
    ids = [list(range(40, 60))]
    whole = forward(session, empty_slots(session, 1), ids, [0])
    slots = empty_slots(session, 1)
    steps = [forward(session, slots, [[token]], [i]) for i, token in enumerate(ids[0])]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, rtol=1e-3, atol=1e-3)
    slots = empty_slots(session, 1)
    halves = [forward(session, slots, [ids[0][:7]], [0]), forward(session, slots, [ids[0][7:]], [7])]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, rtol=1e-3, atol=1e-3)


def test_rows_are_independent(session):
    """A row's logits depend neither on other rows, nor on padding, nor on garbage in unused slots."""
    slots = empty_slots(session, 1)
    forward(session, slots, [[50, 51, 52]], [0])
    alone = forward(session, slots, [[53, 54]], [3])
    crowd = empty_slots(session, 3, fill=1e4)
    forward(session, crowd, [[60, 61, 62, 63], [50, 51, 52, 0], [70, 0, 0, 0]], [0, 0, 0])
    crowded = forward(session, crowd, [[64, 65, 0], [53, 54, 0], [71, 72, 73]], [4, 3, 1])
    np.testing.assert_allclose(crowded[1, :2], alone[0], rtol=1e-3, atol=1e-3)
