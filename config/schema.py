"""The JSON Schema of the file, for editors. Knows what one value may be, and nothing of how values fit together."""

import json
from typing import Any

from pydantic import TypeAdapter

from config.section import Section
from config.settings import Settings, fields_of, section_in

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema of the whole file."""
    generated = Settings.model_json_schema(mode="validation")
    parts: dict[str, dict[str, Any]] = generated.pop("$defs")
    tidied = {section.__name__: section for section in _sections(Settings)}
    definitions = {name: _tidy(part, tidied[name]) for name, part in sorted(parts.items())}
    return {"$schema": _DIALECT, "title": "warmgate", **_tidy(generated, Settings), "$defs": definitions}


def schema_text() -> str:
    """Return the text of `schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _sections(section: type[Section]) -> set[type[Section]]:
    inner = {found for field in section.model_fields.values() if (found := section_in(field.annotation))}
    return {section}.union(*(_sections(found) for found in inner))


def _tidy(part: dict[str, Any], section: type[Section]) -> dict[str, Any]:
    """Say what the file says: no key may be null, and a default is written with its unit."""
    properties = {}
    for key, field in fields_of(section).items():
        written = {name: value for name, value in part["properties"][key].items() if name not in ("title", "default")}
        choices = [choice for choice in written.pop("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            written = choices[0] | written
        elif choices:
            written["anyOf"] = choices
        if "patternProperties" in written:
            written["additionalProperties"] = False
        default = field.get_default(call_default_factory=True)
        if not field.is_required() and not isinstance(default, Section):
            shown = TypeAdapter(section).dump_python(section.model_construct(), mode="json", by_alias=True)[key]
            written |= {} if shown in (None, [], {}) else {"default": shown}
        properties[key] = written
    return {name: value for name, value in part.items() if name != "title"} | {"properties": properties}
