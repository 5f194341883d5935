"""Who may load and unload models, and what a load may bring along. Knows no transport."""

from collections.abc import Iterable

from gateway.errors import Forbidden, InvalidRequest
from gateway.fields import cut
from gateway.request import Caller


def check_may_change(caller: Caller) -> None:
    """Raise `Forbidden` unless the caller's key opens all models: to unload one takes it from everybody."""
    if "*" not in caller.models:
        raise Forbidden("only a key for all models may load and unload them")


def check_no_override(model: str, parameters: Iterable[str]) -> None:
    """Raise `InvalidRequest` where a load brings a configuration or files of its own."""
    for name in parameters:
        raise InvalidRequest(
            f"failed to load '{cut(model)}', '{cut(name)}' cannot override what the configuration file says", name
        )
