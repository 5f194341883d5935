"""Tells whether a start failed for want of memory, from what the process said and how it ended. Knows no process."""

import re

_OF_DEVICE = re.compile(
    r"cuda(?: error)?[ :_]*out of memory|cuda_error_out_of_memory|cudamalloc failed|outofmemoryerror"
    r"|failed to allocate memory for requested buffer|cudnn_status_alloc_failed|cublas_status_alloc_failed"
    r"|no available memory for the cache blocks|hip out of memory|free memory on device",
    re.IGNORECASE,
)
_OF_HOST = re.compile(
    r"std::bad_alloc|\bmemoryerror\b|cannot allocate memory|\boom[- ]kill|\benomem\b|out of memory", re.IGNORECASE
)
_KILLED = re.compile(r"(?:ended|exited) (?:with status|by signal|with) -?(?:9|137)\b")
"""The kernel ends who takes too much with SIGKILL; nobody else kills what only just starts."""


def is_shortage(reason: str) -> bool:
    """Tell whether memory ran out, of a device or of the host, so that a start may succeed once somebody has gone."""
    return any(pattern.search(reason) for pattern in (_OF_DEVICE, _OF_HOST, _KILLED))
