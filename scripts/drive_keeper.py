#!/usr/bin/env python
"""Drives the keeper with random events in virtual time, and checks it at each step; see tests/keeper_world.py.

    .venv/bin/python -m scripts.drive_keeper [--steps 100000] [--seed 1]

The steps are dealt out over worlds with other models each. `scripts/test` does the same for a few hundred.
"""

import argparse
import itertools
import json
import logging
import time
from collections import Counter

from tests.keeper_world import World

_STEPS_OF_A_WORLD = 2000


def main() -> None:
    """Drive; print what was counted, or raise with what is wrong and in which world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    began = time.monotonic()
    counted: Counter[str] = Counter()
    for seed in itertools.count(options.seed):
        if counted["steps"] >= options.steps:
            break
        steps = min(_STEPS_OF_A_WORLD, options.steps - counted["steps"])
        world = World(seed)
        try:
            world.run(steps)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        counted += Counter({"steps": steps, "worlds": 1, "looks": world.keeper.looks})
        counted += world.ended + world.keeper.kinds
        counted["virtual_hours"] += int(world.loop.time() / 3600)
    print(json.dumps({**counted, "seconds": round(time.monotonic() - began, 1)}, indent=2))


if __name__ == "__main__":
    main()
