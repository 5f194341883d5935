"""The lane of one generation: the heads that it knows, and what is done for those that it is for. Knows no socket."""

from dataclasses import dataclass

from gateway.lane.heads import Heads
from gateway.lane.hits import Hits
from gateway.lane.passing import Passage


@dataclass(slots=True)
class Lane:
    """Answers hits, where there is a cache, and passes requests on; everything else is none of its business."""

    heads: Heads
    hits: Hits | None
    passage: Passage
