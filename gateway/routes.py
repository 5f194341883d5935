"""Names that clients use for models, and the models behind each. Pure; knows no pool."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from gateway.analyze import CachePolicy
from gateway.callers.preferences import Preferred
from gateway.errors import ModelNotAllowed, UnknownModel
from gateway.fields import cut
from gateway.request import Caller

_WEIGHT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Route:
    """A name, the models that may answer under it, and those that step in when none of them can.

    With `weights`, one model is drawn for each distinct request; without, every candidate may answer and the one that
    is expected first does. `preferred` says that a client's preference made it what it is.
    """

    name: str
    candidates: tuple[str, ...]
    weights: tuple[float, ...] = ()
    fallback: tuple[str, ...] = ()
    policy: CachePolicy = CachePolicy()
    preferred: Preferred | None = None

    @property
    def first(self) -> str:
        """The model that is asked the most: the heaviest of a split, else the first."""
        if not self.weights:
            return self.candidates[0]
        return max(zip(self.weights, self.candidates, strict=True), key=lambda pair: pair[0])[1]

    def preferring(self, preferred: Preferred | None) -> "Route":
        """Return the route as a client prefers it; where no other model could step in, that is the same."""
        if preferred is None or (not self.fallback and not (self.weights and preferred == "fastest")):
            return self
        if preferred == "exact":
            return replace(self, fallback=(), preferred=preferred)
        everyone = tuple(dict.fromkeys((*self.candidates, *self.fallback)))
        return replace(self, candidates=everyone, weights=(), fallback=(), preferred=preferred)

    def targets(self, fingerprint: bytes) -> tuple[str, ...]:
        """Return the models that may answer this request.

        A split draws by the request's fingerprint, so that its repeat meets the same model, and that model's cache.
        """
        if not self.weights:
            return self.candidates
        point = int.from_bytes(fingerprint[:_WEIGHT_BYTES]) / 2 ** (8 * _WEIGHT_BYTES) * sum(self.weights)
        for model, weight in zip(self.candidates, self.weights, strict=True):
            point -= weight
            if point < 0:
                return (model,)
        return self.candidates[-1:]


class Routes:
    """Every name that a client may call: the configured routes, and each model under its own name.

    Those that are `unlisted` may be called like all others, and are on no list of what there is.
    """

    def __init__(self, routes: Mapping[str, Route], unlisted: Container[str] = ()) -> None:
        self._routes = dict(routes)
        self._unlisted = unlisted

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the configuration."""
        return tuple(self._routes)

    def listed(self, caller: Caller) -> list[str]:
        """Return the names that a caller is told of, in the order of the configuration."""
        return [name for name in self._routes if name not in self._unlisted and caller.may_call(name)]

    def has(self, name: str) -> bool:
        """Tell whether there is a route of this name."""
        return name in self._routes

    def falls_back_on(self, name: str, model: str) -> bool:
        """Tell whether a route has a model for where its candidates fail, and only for that."""
        route = self._routes.get(name)
        return route is not None and model in route.fallback and model not in route.candidates

    def named(self, name: str) -> Route:
        """Return the route of a name that is known."""
        return self._routes[name]

    def resolve(self, name: str, caller: Caller) -> Route:
        """Return the route of a name. Raises `UnknownModel` or `ModelNotAllowed`."""
        route = self._routes.get(name)
        if route is None:
            there_are = ", ".join(self.listed(caller))
            raise UnknownModel(f"the model '{cut(name)}' does not exist; there are: {there_are}", "model")
        if not caller.may_call(name):
            raise ModelNotAllowed(
                f"this key may not call '{cut(name)}'; it may call: {', '.join(caller.models)}", "model"
            )
        return route
