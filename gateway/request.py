"""What every wire decodes to. Knows no wire, no cache and no pool."""

from collections.abc import Mapping
from dataclasses import field

from backends.contract import Job
from backends.value import value


@value
class Request:
    """A client's question in canonical form.

    `fields` is everything that the answer depends on, as JSON values: a field that a surface does not know is in it,
    what only shapes the reply (`stream`, `user`) is not. `beside` is what the answer depends on that is no field of the
    body, as a path: kept apart, since a client may give a field of its own any name. `asked` is the last user text
    where the request ends with one, or the only text that is to be classified: the only part that a match by meaning
    may vary. An embedding has none, since a near vector is not the vector.
    `is_function` says of a relay that the same request has the same answer.
    """

    model: str
    job: Job
    fields: Mapping[str, object]
    asked: str | None = None
    beside: Mapping[str, object] = field(default_factory=dict)
    is_function: bool = False


@value
class Limits:
    """What a caller may use; None is without bound. Tokens are those read and those made."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


UNLIMITED = Limits()


@value
class Caller:
    """Who asks: `scope` parts what the caches keep for one tenant from another's, `models` is what it may call."""

    scope: str
    models: tuple[str, ...] = ("*",)
    limits: Limits = UNLIMITED

    def may_call(self, model: str) -> bool:
        """Tell whether this caller's key opens the model."""
        return "*" in self.models or model in self.models


@value
class Directives:
    """What a client asks of the caches by its `Cache-Control` (RFC 9111 §5.2.1, RFC 5861); ages in seconds.

    What it accepts of stale answers counts within what the operator allows. `tags` go with the answer if it is kept.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    max_stale_s: float | None = None
    min_fresh_s: int = 0
    stale_while_revalidate_s: int = 0
    stale_if_error_s: int = 0
    tags: tuple[str, ...] = ()


UNSAID = Directives()
"""What nearly all requests ask of the caches: nothing in particular."""
