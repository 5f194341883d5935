#!/usr/bin/env python
"""Kills a process with a semantic cache a thousand times at random moments, and checks after each what it left.

No answer may be another question's, stale, or in the store and not found. `scripts/test` does the same a few times.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.semantic_process import be_killed


def main() -> None:
    """Kill and check; print what was counted, or raise with what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        counted = be_killed(Path(directory), options.kills, options.seed)
    print(json.dumps({"seed": options.seed, **counted, "seconds": round(time.monotonic() - began, 1)}, indent=2))


if __name__ == "__main__":
    main()
