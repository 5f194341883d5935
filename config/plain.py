"""Settings as plain data in the operator's words, to be shown and compared. Secrets stay hidden."""

from typing import Any

from config.settings import Settings


def plain(settings: Settings) -> dict[str, Any]:
    """Return what JSON can hold: the file's keys, values with units, every default written out.

    What is left out and off has no key. A secret, and the digest of a key, is `hidden:` and a mark of the value: it
    tells that the value is another one, and not what it is.
    """
    data: dict[str, Any] = _without_none(settings.model_dump(mode="json", by_alias=True))
    return data


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
