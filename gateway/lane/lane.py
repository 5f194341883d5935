"""The lane of one generation: the heads that it knows, and what is done for those that it is for. Knows no socket."""

from gateway.lane.desk import Client
from gateway.lane.errand import Errand
from gateway.lane.groups import Group
from gateway.lane.heads import Heads
from gateway.lane.hits import Hits
from gateway.lane.passing import Passage


class Lane:
    """Answers hits, where there is a cache, and passes requests on, where there is a server to pass them on to."""

    __slots__ = ("begin", "heads", "reply")

    def __init__(self, heads: Heads, hits: Hits | None, passage: Passage | None) -> None:
        self.heads = heads
        self.reply = _no_reply if hits is None else hits.reply
        self.begin = _no_errand if passage is None else passage.begin


def _no_reply(_group: Group, _body: bytes) -> bytes | None:
    return None


def _no_errand(_group: Group, _body: bytes, _client: Client) -> Errand | None:
    return None
