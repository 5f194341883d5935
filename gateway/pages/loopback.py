"""Keeps what is for the operator to this machine. Knows no page."""

from gateway.callers.auth import check_same_site, is_loopback
from gateway.errors import Forbidden
from gateway.surfaces.wire import Call


def only_loopback(call: Call) -> None:
    """Raise `Forbidden`: no key opens these pages, so that neither other machines nor pages of other sites may."""
    check_same_site(call.headers)
    if not is_loopback(call.peer):
        raise Forbidden(f"{call.path} answers loopback only; this call came from {call.peer}")
