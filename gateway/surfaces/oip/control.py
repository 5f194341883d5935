"""Loading and unloading: who may do it, and what a load may bring along. Knows no transport."""

import logging
from collections.abc import Iterable

from gateway.catalog import Catalog
from gateway.errors import Forbidden, InvalidRequest
from gateway.fields import cut
from gateway.request import Caller

_log = logging.getLogger(__name__)


async def load(catalog: Catalog, model: str, caller: Caller, parameters: Iterable[str]) -> None:
    """Return when the model has a replica up. Raises `RequestRefused` and `BackendError`."""
    _check_may_change(caller)
    _check_no_override(model, parameters)
    await catalog.load(model)
    _log.info("%s was loaded for %s", model, _who(caller))


def unload(catalog: Catalog, model: str, caller: Caller) -> None:
    """Take the model from everybody. Raises `RequestRefused`."""
    _check_may_change(caller)
    catalog.unload(model)
    _log.info("%s was unloaded for %s", model, _who(caller))


def _who(caller: Caller) -> str:
    return caller.scope or "a caller without a key"


def _check_may_change(caller: Caller) -> None:
    """Raise `Forbidden` unless the caller's key opens all models: to unload one takes it from everybody."""
    if "*" not in caller.models:
        raise Forbidden("only a key for all models may load and unload them")


def _check_no_override(model: str, parameters: Iterable[str]) -> None:
    """Raise `InvalidRequest` where a load brings a configuration or files of its own."""
    for name in parameters:
        raise InvalidRequest(
            f"failed to load '{cut(model)}', '{cut(name)}' cannot override what the configuration file says", name
        )
