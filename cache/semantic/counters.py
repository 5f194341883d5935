"""What happens in the semantic cache, counted. Knows nothing of why."""

from dataclasses import dataclass


@dataclass(slots=True)
class SemanticCounters:
    """What happened since the start.

    `gone`: found and no longer in the store; `refused`: vectors of no use; `verified`: pairs that the verifier judged.
    """

    additions: int = 0
    evictions: int = 0
    gone: int = 0
    refused: int = 0
    verified: int = 0
