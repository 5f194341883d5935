"""The keys of settings, and whom of a gateway that serves newer settings take something from. Pure."""

from dataclasses import dataclass

from config.settings import ServerSettings
from gateway.callers.auth import Key, by_digest, narrowed
from gateway.request import Limits


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The names of the keys that are refused, and of those that may do less, before an edit is in force."""

    refused: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.refused or self.narrowed)

    def __str__(self) -> str:
        """Return it as `server.keys: refused 'a', 'b'; narrowed 'c'`."""
        told = {"refused": self.refused, "narrowed": self.narrowed}
        said = [f"{what} {', '.join(map(repr, names))}" for what, names in told.items() if names]
        return f"server.keys: {'; '.join(said)}"


def keys_of(server: ServerSettings) -> tuple[Key, ...]:
    """Return the keys that these settings have."""
    return tuple(
        Key(key.name, key.sha256, key.models, Limits(key.requests_per_minute, key.tokens_per_minute, key.concurrency))
        for key in server.keys
    )


def withdrawn(serving: ServerSettings, newest: ServerSettings) -> Withdrawn:
    """Tell which keys of those that serve newer settings take something from."""
    keys = keys_of(serving)
    still = {key.name: key for key in narrowed(keys, keys_of(newest), by_digest)}
    return Withdrawn(
        refused=tuple(key.name for key in keys if key.name not in still),
        narrowed=tuple(key.name for key in keys if still.get(key.name, key) != key),
    )
