"""The description of what is served: it is sound, and names exactly the routes that there are."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
import orjson
import pytest

from config.settings import Settings
from gateway.building import generation
from gateway.openapi.document import document, operations
from gateway.openapi.shapes import HEADERS

DOCUMENT = orjson.loads(document())


def given_to_front(monkeypatch: pytest.MonkeyPatch) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the method and path of all model requests and of all pages of a generation with all its parts."""
    given: list[Any] = []
    monkeypatch.setattr(generation, "Front", lambda *parts: given.append(parts) or SimpleNamespace())
    monkeypatch.setattr(generation, "_lane", lambda *_, **__: None)  # it only takes what a surface of these has
    anything: Any = object()
    settings = Settings.model_validate({"models": {"m": {"task": "chat", "http": {"url": "http://127.0.0.1:1/v1"}}}})
    parts = generation.Parts(forks=anything, pools={}, caches=None, batches=anything)
    lasting = generation.Lasting(**dict.fromkeys(generation.Lasting.__dataclass_fields__, anything))
    generation.generation_of(settings, parts, lasting)
    ((surfaces, pages, *_),) = given
    return {("POST", path) for surface in surfaces for path in surface.paths}, set(pages)


def described() -> set[tuple[str, str]]:
    """Return the method and path of every operation."""
    return {(method.upper(), path) for path, methods in operations().items() for method in methods}


def parts(value: object, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every object within a value, with where it stands."""
    if isinstance(value, dict):
        yield path, value
        for name, item in value.items():
            yield from parts(item, *path, name)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from parts(item, *path, str(place))


def test_every_route_is_described_and_every_description_is_of_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """No surface and no page serves what is not in the description, which names nothing else."""
    asked, pages = given_to_front(monkeypatch)
    assert described() == asked | pages


def test_every_model_request_may_have_a_deadline_and_a_word_for_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers that are read for all surfaces are described where a surface answers, and nowhere else."""
    asked, _ = given_to_front(monkeypatch)
    for method, path in described():
        parameters = operations()[path][method.lower()].get("parameters", [])
        told = [parameter["$ref"].rpartition("/")[2] for parameter in parameters if "$ref" in parameter]
        assert told == (list(HEADERS) if (method, path) in asked else []), path


def test_every_reference_leads_somewhere() -> None:
    """What is referred to is in the document."""
    for where, part in parts(DOCUMENT):
        if isinstance(reference := part.get("$ref"), str):
            found = DOCUMENT
            for name in reference.removeprefix("#/").split("/"):
                assert name in found, f"{'/'.join(where)}: {reference}"
                found = found[name]


def test_every_schema_is_one() -> None:
    """Each schema of a body or a parameter is a JSON Schema of the draft that OpenAPI 3.1 names."""
    schemas = [part["schema"] for _, part in parts(DOCUMENT) if isinstance(part.get("schema"), dict)]
    assert len(schemas) > 100
    for schema in schemas:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_operation_has_a_name_of_its_own_and_its_parameters() -> None:
    """Names do not repeat, and each part of a path that has a name is described."""
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names)) == len(described())
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            given = {p["name"] for p in operation.get("parameters", ()) if p.get("in") == "path"}
            assert given == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
