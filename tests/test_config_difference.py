"""What an edit changes: each key of the file is told when it changes, with what that does, and nothing else is."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.difference import Difference, difference, difference_of_plain
from config.effects import Effect
from config.load import load, parse
from config.plain import plain
from config.problems import dotted
from config.section import Section
from config.settings import Settings, fields_of, section_in

ROOT = Path(__file__).parent.parent
SECRETS = {"HF_TOKEN": "very-secret-1", "OPENAI_API_KEY": "very-secret-2", "CALLBACK_SECRET": "very-secret-3"}

# The example has every section but this one, whose files it cannot bring along.
TLS = {"certificate": "a.pem", "key": "b.pem"}

Place = tuple[str | int, ...]


def example() -> dict[str, Any]:
    """Return the plain form of a file with every section."""
    found = plain(load(ROOT / "config/example.yaml", SECRETS))
    found["server"]["tls"] = dict(TLS)
    return found


def places(section: type[Section], data: Mapping[str, Any], path: Place = ()) -> Iterator[tuple[Place, type[Section]]]:
    """Yield the place of every key that the schema knows, in this data, with the section that it belongs to."""
    for key, field in fields_of(section).items():
        here = (*path, key)
        inner = section_in(field.annotation)
        if inner is None:
            yield here, section
            continue
        many = get_origin(field.annotation)
        value = data.get(key)
        if many is tuple:
            for index, item in enumerate(value or ()):
                yield from places(inner, item, (*here, index))
        elif many is Mapping:
            for name, item in (value or {}).items():
                yield from places(inner, item, (*here, name))
        elif value is not None:
            yield from places(inner, value, here)


PLACES = list(places(Settings, example()))


def with_other(data: dict[str, Any], place: Place) -> dict[str, Any]:
    """Return the data with another value at one place."""
    found: Any = copy.deepcopy(data)
    inner = found
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = {"another": 1} if isinstance(inner.get(place[-1]), dict) else "another"
    return found


def key_of(place: Place) -> str:
    """Return the key of a change at this place: the key of a client is known by its name."""
    return dotted(["team-a" if place[:index] == ("server", "keys") else step for index, step in enumerate(place)])


def test_the_example_has_every_section() -> None:
    """What follows changes each key of the schema: no section is left out."""
    every: set[type[Section]] = set()
    waiting: list[type[Section]] = [Settings]
    while waiting:
        section = waiting.pop()
        every.add(section)
        waiting += [inner for field in fields_of(section).values() if (inner := section_in(field.annotation))]
    assert {section for _, section in PLACES} >= every - {Settings}


@pytest.mark.parametrize("place", [place for place, _ in PLACES], ids=[key_of(place) for place, _ in PLACES])
def test_a_change_of_any_key_is_told_with_its_effect(place: Place) -> None:
    """Whichever key has another value, it is told by its path, and what the change does is known."""
    changes = difference_of_plain(example(), with_other(example(), place))
    assert changes
    assert Effect.UNKNOWN not in {change.effect for change in changes}
    if place[:2] == ("server", "keys") and place[-1] == "name":
        assert [change.key for change in changes] == ["server.keys.team-a", "server.keys.another"]
    else:
        assert all(f"{change.key}.".startswith(f"{key_of(place)}.") for change in changes)


@given(st.lists(st.sampled_from([place for place, _ in PLACES if place[-1] != "name"]), max_size=6, unique=True))
def test_exactly_the_changed_keys_are_told(chosen: list[Place]) -> None:
    """Of several changes none is lost and none is added; settings do not differ from themselves."""
    edited = example()
    for place in chosen:
        edited = with_other(edited, place)
    told = difference_of_plain(example(), edited)
    missed = [place for place in chosen if not any(f"{c.key}.".startswith(f"{key_of(place)}.") for c in told)]
    added = [c.key for c in told if not any(f"{c.key}.".startswith(f"{key_of(place)}.") for place in chosen)]
    assert (missed, added) == ([], [])
    assert len(difference_of_plain(edited, edited)) == 0


@pytest.mark.parametrize("section", ["cache", "cache.semantic", "batch", "server.tls", "server.grpc", "routes.chat"])
def test_a_section_that_comes_or_goes_is_one_change(section: str) -> None:
    """A section that is written or left out is told by its own key alone, with what that does."""
    without: Any = example()
    inner = without
    *around, last = section.split(".")
    for step in around:
        inner = inner[step]
    del inner[last]
    for old, new in ((example(), without), (without, example())):
        (change,) = difference_of_plain(old, new)
        assert change.key == section
        assert change.effect is not Effect.UNKNOWN


def edited(old: str, new: str, text: str) -> Difference:
    """Return what changes where one part of a file is replaced."""
    assert old in text
    return difference(parse(text, {}, source="f"), parse(text.replace(old, new), {}, source="f"))


MODELS = """\
models:
  a: {task: chat, onnx: {path: x}, pool: {max: 1}}
  h: {task: chat, http: {url: "http://u", key: very-secret}}
  e: {task: embed, onnx: {path: x}}
"""


@pytest.mark.parametrize(
    ("old", "new", "effect", "words"),
    [
        ("path: x}, ", "path: y}, ", Effect.ENGINE, "models.a.onnx.path: 'x' → 'y': restarts the replicas of a"),
        ("max: 1", "max: 2", Effect.POOL, "models.a.pool.max: 1 → 2: takes effect at once, without a restart"),
        (
            "  e:",
            "  f:",
            Effect.MODEL_ADDED,
            "models.e: removed: takes no new requests for e; those in flight end first",
        ),
        ("very-secret", "other-secret", Effect.ENGINE, "models.h.http.key: changed: sends new requests for h"),
    ],
)
def test_a_change_says_what_it_does(old: str, new: str, effect: Effect, words: str) -> None:
    """Models come, go, are restarted or only get other limits; a secret is never shown."""
    found = edited(old, new, MODELS)
    assert effect in {change.effect for change in found}
    assert str(found).startswith(words)
    assert "secret" not in str(found)


def test_the_disk_of_the_cache_is_resized_in_place_but_not_switched() -> None:
    """Another size is an adjustment; to switch the disk on or off opens the stores anew."""
    text = MODELS + "cache: {exact: {disk: 1GiB}}\n"
    assert [change.effect for change in edited("1GiB", "2GiB", text)] == [Effect.CACHE]
    assert [change.effect for change in edited("1GiB", "0", text)] == [Effect.STORES]


def test_another_order_is_no_change() -> None:
    """Neither the order of models nor that of keys matters, so moving them restarts nothing."""
    keys = [f"{{name: {name}, sha256: '{digit * 64}'}}" for name, digit in (("k", "0"), ("l", "1"))]
    one = f"{MODELS}server: {{keys: [{', '.join(keys)}]}}\n"
    lines = MODELS.splitlines()
    other = f"server: {{keys: [{', '.join(reversed(keys))}]}}\n" + "\n".join([lines[0], *reversed(lines[1:])])
    assert len(difference(parse(one, {}, source="f"), parse(other, {}, source="f"))) == 0


def test_a_key_of_another_version_is_told_as_such() -> None:
    """Settings of a gateway of another version can be compared: what is not known here is said to be so."""
    (change,) = difference_of_plain({"models": {}}, {"models": {}, "later": 1})
    assert change.effect is Effect.UNKNOWN


def test_plain_settings_are_json_that_reads_back_to_the_same() -> None:
    """The plain form has every value in the file's own words: read as a file, it gives the same settings."""
    data = plain(load(ROOT / "config/example.yaml", SECRETS))
    text = json.dumps(data)
    assert "very-secret" not in text
    assert "0" * 64 not in text
    data["server"]["keys"][0]["sha256"] = "0" * 64
    data["cache"]["shared"]["url"] = "redis://127.0.0.1:6379/0"
    for upstream in ("gpt", "pictures"):
        del data["models"][upstream]["pool"]  # its defaults must not be written
    changes = difference_of_plain(example(), plain(parse(json.dumps(data), {}, source="f")))
    assert [change.key for change in changes] == [
        "server.tls",  # only in the example that this module makes
        "models.llama.command.env.HF_TOKEN",
        "models.gpt.http.key",
        "models.pictures.http.key",
        "batch.callback_secret",
    ]
