"""Where requests go that are passed on: a model, and what is sent to it for a body. Knows no connection."""

from backends.contract import Job, Task
from backends.pool import Pool
from backends.sending import SendingBackend
from gateway.analyze import Features
from gateway.answer import Head
from gateway.caching.cache_control import CacheStatus
from gateway.counting.access_log import AccessLog
from gateway.counting.model_statistics import ModelStatistics
from gateway.counting.telemetry import Telemetry
from gateway.lane.asked import Asked
from gateway.lane.form import Specimen, form_of
from gateway.query import Outcome

WIRE = "openai"
STATUS = 200
# The types of replies that are known at a time: an upstream has one for bodies, and one for streams.
_FORMS = 8


class Target:
    """A model, and what the requests that are passed on to it for one reason have in common."""

    def __init__(self, pool: Pool, features: Features, telemetry: Telemetry, statistics: ModelStatistics) -> None:
        self.pool = pool
        self.features = features
        self.status = CacheStatus(forward="bypass", detail=features.reason)
        self.made = telemetry.of(pool.model)
        self.sums = statistics.sums(pool.model)
        self.answered = telemetry.tally(WIRE, pool.model, STATUS, self.status.label())
        self._forms: dict[tuple[str, bool], bytes] = {}

    def form(self, content_type: str, *, streamed: bool = False) -> bytes:
        """Return the head of the replies of this type."""
        form = self._forms.get((content_type, streamed))
        if form is None:
            if len(self._forms) >= _FORMS:
                self._forms.clear()
            head = Head(self.pool.model, self.pool.engine.version, 0.0)
            outcome = Outcome(head, self.status, 0.0, self.features, Specimen(), Job(Task.CHAT), 0.0)
            form = self._forms[content_type, streamed] = form_of(outcome, content_type, streamed=streamed)
        return form

    def note(self, access: AccessLog, total_s: float, status: int, lookup_s: float) -> None:
        """Have a request in the access log."""
        label = self.status.label()
        access.note(self.pool.model, total_s=total_s, cache=label, status=status, away_s=lookup_s)


class Way:
    """What is known of a request by its group and its body alone. `written` is what `writer` sends for it.

    About `tokens_in` are read for it, and `tokens` taken at most.
    """

    __slots__ = ("streamed", "target", "tokens", "tokens_in", "writer", "written")

    def __init__(self, target: Target, asked: Asked) -> None:
        self.target = target
        self.tokens_in = asked.tokens
        self.tokens = asked.tokens + asked.most
        self.streamed = asked.streamed
        self.writer: SendingBackend | None = None
        self.written = b""
