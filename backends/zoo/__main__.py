"""The command that leaves the four models in a directory: `python -m backends.zoo --to var/models`.

Nothing but this command knows which models there are and what each is made of.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from backends.zoo import weights
from backends.zoo.assembly import Recipe, assemble, digests

_HERE = Path(__file__).parent
_GRAPH = (_HERE / "graph.py", _HERE / "safetensors.py", _HERE / "minilm.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing or out of date, one line for each model, and return the exit status."""
    options = _options(arguments)
    made_all = True
    for recipe in recipes(options.source, options.to, options.minilm_dir):
        started = time.perf_counter()
        try:
            made = assemble(recipe, options.to)
        except (OSError, ValueError, KeyError, ImportError, weights.WeightsUnavailableError) as error:
            made_all = False
            _say(f"{recipe.name}: not made: {error}", sys.stderr)
        else:
            took_s = time.perf_counter() - started
            _say(f"{recipe.name}: {'made' if made else 'up to date'} ({took_s:.1f} s)", sys.stdout)
    return 0 if made_all else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m backends.zoo", description="Make the models that workers load.")
    parser.add_argument("--to", type=Path, required=True, help="where the model directories go")
    parser.add_argument("--from", type=Path, default=Path("models"), dest="source", help="committed parts (models)")
    own = os.environ.get("WARMGATE_MINILM_DIR")
    parser.add_argument(
        "--minilm-dir",
        type=Path,
        default=Path(own) if own else None,
        help="your copy of all-MiniLM-L6-v2 (model.safetensors, tokenizer.json); default: $WARMGATE_MINILM_DIR",
    )
    return parser.parse_args(arguments)


def recipes(source: Path, models: Path, minilm_directory: Path | None) -> tuple[Recipe, ...]:
    """Return the recipes in the order in which they must be followed: intents is built on the minilm that was made."""
    minilm_inputs = {**weights.DIGESTS, **digests([*_GRAPH, *sorted((source / "minilm").glob("*"))])}
    intents_parts = [source / "intents" / name for name in ("head.npz", "labels.txt", "model.yaml")]
    intents_inputs = {f"minilm/{name}": digest for name, digest in minilm_inputs.items()}
    intents_inputs |= digests([_HERE / "intents.py", *intents_parts])
    verifier_inputs = digests([_HERE / "graph.py", _HERE / "verifier.py", *sorted((source / "verifier").glob("*"))])
    atlas_inputs = digests([_HERE / "atlas.py", *sorted((source / "atlas").glob("*"))])
    return (
        Recipe("minilm", minilm_inputs, lambda target: _minilm(source / "minilm", minilm_directory, target)),
        Recipe("intents", intents_inputs, lambda target: _intents(source / "intents", models / "minilm", target)),
        Recipe("verifier", verifier_inputs, lambda target: _verifier(source / "verifier", target)),
        Recipe("atlas", atlas_inputs, lambda target: _atlas(source / "atlas", target)),
    )


# The builders import onnx, which takes longer than finding out that there is nothing to build.


def _minilm(source: Path, directory: Path | None, target: Path) -> None:
    from backends.zoo import minilm  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        files = weights.obtain(
            weights.sources(directory),
            Path(scratch),
            failed=lambda reason: _say(f"minilm: not from {reason}", sys.stderr),
        )
        minilm.build(source, files, target)


def _intents(source: Path, encoder: Path, target: Path) -> None:
    from backends.zoo import intents  # noqa: PLC0415

    intents.build(source, encoder, target)


def _verifier(source: Path, target: Path) -> None:
    from backends.zoo import verifier  # noqa: PLC0415

    verifier.build(source, target)


def _atlas(source: Path, target: Path) -> None:
    from backends.zoo import atlas  # noqa: PLC0415

    atlas.build(source, target)


def _say(line: str, stream: TextIO) -> None:
    print(line, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
