"""The pages keep step with the code: every setting, its default and meaning, and every metric."""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from config.document import read
from config.load import load
from config.section import Section
from config.settings import Settings, fields_of, section_in
from gateway.batch.callbacks import signature

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config/example.yaml"
ENVIRON = {"HF_TOKEN": "t", "OPENAI_API_KEY": "k", "CALLBACK_SECRET": "s"}
METRIC = re.compile(r'"(warmgate_[a-z_]+)"')


def sections(section: type[Section], path: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Yield every section with its path as the page writes it: `models.*.pool`, `server.keys[]`."""
    yield path, section
    for key, field in fields_of(section).items():
        inner = section_in(field.annotation)
        if inner is not None:
            many = {Mapping: ".*", tuple: "[]"}.get(get_origin(field.annotation) or object, "")
            yield from sections(inner, f"{path}.{key}{many}".removeprefix("."))


SECTIONS = list(sections(Settings))


def rows_of(page: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Return section → key → (default, meaning) of the tables of docs/configuration.md."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    section = ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`").replace("The file", "")
            found[section] = {}
        elif row := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+) \|", line):
            found[section][row[1]] = (row[2], row[3])
    return found


def has_plain_default(field: FieldInfo) -> bool:
    """Tell a field whose default is a value, from one that must be written or is off when left out."""
    default = field.get_default(call_default_factory=True)
    return not (field.is_required() or section_in(field.annotation) or default in (None, (), {}))


def value_of(field: FieldInfo, text: str) -> Any:
    """Read a value, written as in YAML, as this field would."""
    node, _ = read(text, "page")
    assert node is not None
    annotated: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(annotated).validate_python(node.plain())


@pytest.mark.parametrize(("path", "section"), SECTIONS, ids=[path or "file" for path, _ in SECTIONS])
def test_the_page_has_every_key_with_its_default_and_meaning(path: str, section: type[Section]) -> None:
    """docs/configuration.md lists exactly the keys of the section, in their order, with true defaults and meanings."""
    rows = rows_of((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))[path]
    fields = fields_of(section)
    assert list(rows) == list(fields)
    assert {key: meaning for key, (_, meaning) in rows.items()} == {key: f.description for key, f in fields.items()}
    for key, field in fields.items():
        default = rows[key][0]
        if has_plain_default(field):
            assert value_of(field, default.strip("`")) == field.default
        else:
            assert (default == "required") == field.is_required()


def test_the_example_shows_every_key_with_its_default() -> None:
    """config/example.yaml loads, writes every key (some in a comment), and gives each the default that it has."""
    text = EXAMPLE.read_text(encoding="utf-8")
    written: dict[type[Section], set[str]] = {}
    collect(load(EXAMPLE, ENVIRON), written)
    for path, section in SECTIONS:
        for key in fields_of(section):
            assert key in written.get(section, ()) or re.search(rf"# +{key}:", text), (
                f"{path}.{key} is not in {EXAMPLE.name}"
            )


def collect(section: Section, written: dict[type[Section], set[str]]) -> None:
    """Add the keys that a section and those inside it have written; fail where one is not the default."""
    kind = type(section)
    for name, (key, field) in zip(kind.model_fields, fields_of(kind).items(), strict=True):
        value = getattr(section, name)
        if name in section.model_fields_set:
            written.setdefault(kind, set()).add(key)
            assert not has_plain_default(field) or value == field.default, f"{key} is not at its default"
        values = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
        for inner in values:
            if isinstance(inner, Section):
                collect(inner, written)


def test_the_shown_check_of_a_callback_is_right() -> None:
    """docs/batches.md shows a function that takes our signature for five minutes, and no other."""
    page = (ROOT / "docs/batches.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"hmac": hmac, "hashlib": hashlib}
    exec(shown, names)
    is_ours, body = names["is_ours"], b'{"batch_id":"b"}'
    header = signature(b"secret", body, 1000.5)

    assert is_ours(b"secret", header, body, 1200.0)
    assert not is_ours(b"secret", header, body, 1300.5)
    assert not is_ours(b"secret", header, body + b" ", 1200.0)
    assert not is_ours(b"other", header, body, 1200.0)


def test_every_metric_is_on_its_page() -> None:
    """docs/metrics.md names exactly the metrics that the gateway's code names."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "gateway").rglob("*.py")))
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(warmgate_[a-z_]+)` \|", page, re.MULTILINE)
    # Prometheus' client adds the ending to the names of counters itself.
    assert sorted(name.removesuffix("_total") for name in rows) == sorted(
        {name.removesuffix("_total") for name in METRIC.findall(code)}
    )
