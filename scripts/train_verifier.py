"""Train the verifier of pairs; write models/verifier/weights.npz, and models/minilm/tokens.npz, which it reads through.

    .venv/bin/python scripts/train_verifier.py --minutes 60 [--start FILE] [--work DIRECTORY]

Needs torch, which is no dependency of the project (`.venv/bin/pip install torch`; the CPU build is enough), and the
built minilm (scripts/setup). It learns from pairs drawn from scripts/data/verifier, from the tune half of the pairs of
kmemo and of some of checklist's capabilities, and from the questions of banking77's training file; whatever of it is
missing is left out, and said. Every ninth block of the hand-written questions is held back: the output is calibrated
on those. For the first third the projection of minilm's states is learned too; then it is fixed and rounded to int8, as
it runs.

The learning rate follows the clock. The committed weights took 43 minutes on a part of one busy core, in three runs of
a draft of this script, of which the later ones started from the former's state (`--start`); they are the mean of two
states of the last. The lessons have grown since, so a new run gives other weights.
"""

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from scripts.pairs.gathering import Gathered, from_banking, from_grammar, from_sets
from scripts.pairs.grammar import load
from scripts.pairs.network import SCALE, Network
from scripts.running_gateway import ROOT

DATA = ROOT.parent / "shared" / "data"
BATCH, RATE, WARM_UP, REPEATED, SMOOTHED = 128, 1e-3, 200, 0.02, 0.02
HELD_BACK, OF_EACH = 4, 9
SEED = 1


@dataclass(frozen=True, slots=True)
class Source:
    """Examples, how often they are drawn, and their token vectors once the projection is fixed."""

    found: Gathered
    weight: float
    fixed: NDArray[np.int8] | None = None

    def text(self, rows: NDArray[np.int64], network: Network) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the padded vectors and ids of some texts."""
        hidden = self.found.hidden
        sizes = hidden.starts[rows + 1] - hidden.starts[rows]
        states = hidden.states if self.fixed is None else self.fixed
        values = np.zeros((len(rows), max(1, sizes.max()), states.shape[1]), np.float32)
        ids = np.zeros(values.shape[:2], np.int64)
        for at, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            span = slice(hidden.starts[row], hidden.starts[row] + size)
            values[at, :size], ids[at, :size] = states[span], hidden.ids[span]
        given = torch.from_numpy(values)
        return network.project(given) if self.fixed is None else given / SCALE, torch.from_numpy(ids)


class Trainer:
    """One network, its optimiser and its sources."""

    def __init__(self, sources: list[Source], start: Path | None) -> None:
        torch.manual_seed(SEED)
        self._rng = np.random.default_rng(SEED)
        self.sources = sources
        self.network = Network()
        if start is not None:
            self.network.load_state_dict(torch.load(start))
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=RATE, weight_decay=0.02, betas=(0.9, 0.98))
        self._queue: list[tuple[Source, NDArray[np.int64]]] = []
        self.steps = 0

    def fix_projection(self) -> None:
        """Fix the projection, rounded as it is kept, and make the int8 vectors of all tokens with it."""
        for part in (self.network.proj, self.network.norm):
            for parameter in part.parameters():
                parameter.data = parameter.data.half().float()
                parameter.requires_grad_(False)
        self.sources = [replace(each, fixed=projected(each.found, self.network)) for each in self.sources]
        self._queue.clear()

    def step(self, progress: float) -> float:
        """Learn from one batch; `progress` goes from 0 to 1."""
        for group in self._optimizer.param_groups:
            group["lr"] = RATE * min(1, (self.steps + 1) / WARM_UP) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        source, rows = self._next()
        found = source.found
        first, second, same, near = (
            found.a[rows],
            found.b[rows].copy(),
            found.same[rows].copy(),
            found.near[rows].copy(),
        )
        # A question is the same as itself: no set says so.
        itself = self._rng.random(len(rows)) < REPEATED
        second[itself], same[itself], near[itself] = first[itself], True, 1.0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            texts = (source.text(first, self.network), source.text(second, self.network))
            logits = self.network(*texts, torch.from_numpy(near[:, None])).float()
        wanted = torch.from_numpy(same.astype(np.float32)) * (1 - SMOOTHED) + SMOOTHED / 2
        loss = F.binary_cross_entropy_with_logits(logits, wanted)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self.steps += 1
        return loss.item()

    def _next(self) -> tuple[Source, NDArray[np.int64]]:
        """Return a batch of pairs of like length from one source."""
        if not self._queue:
            weights = np.array([each.weight for each in self.sources])
            source = self.sources[self._rng.choice(len(self.sources), p=weights / weights.sum())]
            count = min(len(source.found.a), 16 * BATCH)
            rows = self._rng.choice(len(source.found.a), count, replace=False)
            rows = rows[np.argsort(source.found.lengths[rows] + self._rng.random(count))]
            batches = [rows[at : at + BATCH] for at in range(0, count, BATCH)]
            self._rng.shuffle(batches)
            self._queue += [(source, batch) for batch in batches]
        return self._queue.pop()


def projected(found: Gathered, network: Network) -> NDArray[np.int8]:
    """Return the vectors of all tokens in int8, as the built minilm gives them."""
    parts = []
    with torch.no_grad():
        for at in range(0, len(found.hidden.states), 20000):
            states = torch.from_numpy(found.hidden.states[at : at + 20000].astype(np.float32))
            parts.append((network.project(states) * SCALE).round().clamp(-127, 127).numpy().astype(np.int8))
    return np.concatenate(parts)


def judge(source: Source, network: Network) -> NDArray[np.float64]:
    """Return the logits of all pairs."""
    network.eval()
    found, logits = source.found, np.zeros(len(source.found.a))
    with torch.no_grad():
        for rows in np.array_split(np.argsort(found.lengths), max(1, len(found.a) // BATCH)):
            texts = (source.text(found.a[rows], network), source.text(found.b[rows], network))
            logits[rows] = network(*texts, torch.from_numpy(found.near[rows, None])).numpy()
    network.train()
    return logits


def calibrate(logits: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and shift that make probabilities of logits (Platt 1999), both kinds of pairs weighing the same."""
    x, y = torch.from_numpy(logits), torch.from_numpy(same.astype(np.float64))
    weight = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    fitted = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([fitted], max_iter=100)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(x * fitted[0] + fitted[1], y, weight)
        value.backward()
        return value

    optimizer.step(loss)
    return float(fitted[0]), float(fitted[1])


def write(network: Network, slope: float, shift: float) -> None:
    """Write the weights in half precision: the projection is minilm's, the rest the verifier's."""
    arrays = {name: value.numpy().astype(np.float16) for name, value in network.state_dict().items()}
    tokens = {"kernel": arrays["proj.weight"].T, "bias": arrays["proj.bias"]}
    tokens |= {"norm_weight": arrays["norm.weight"], "norm_bias": arrays["norm.bias"]}
    np.savez_compressed(ROOT / "models" / "minilm" / "tokens.npz", **tokens)
    kept = {name: value for name, value in arrays.items() if not name.startswith(("proj.", "norm."))}
    calibration = {"calibration.slope": np.float32(slope), "calibration.shift": np.float32(shift)}
    np.savez_compressed(ROOT / "models" / "verifier" / "weights.npz", **kept, **calibration)


def main() -> None:
    """Gather, train, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to train")
    parser.add_argument("--rounds", type=int, default=7000, help="rounds of lessons that are drawn")
    parser.add_argument("--start", type=Path, help="state to start from; the projection is fixed at once then")
    parser.add_argument("--state", type=Path, default=Path("verifier.pt"), help="where the state is left")
    parser.add_argument("--models", type=Path, default=ROOT / "var" / "models", help="where the built minilm is")
    options = parser.parse_args()
    minilm = options.models / "minilm"
    grammar = load(ROOT / "scripts" / "data" / "verifier")
    learned = from_grammar(grammar.part(HELD_BACK, OF_EACH, inside=False), options.rounds, SEED, minilm)
    sources = [Source(learned, len(learned.a))]
    sources += [
        Source(found, 0.1 * len(learned.a)) for found in (from_sets(DATA, minilm), from_banking(DATA, minilm)) if found
    ]
    trainer = Trainer(sources, options.start)
    began, fixed = time.monotonic(), False
    while (progress := (time.monotonic() - began) / 60 / options.minutes) < 1:
        if not fixed and (options.start is not None or progress > 1 / 3):
            trainer.fix_projection()
            fixed = True
        loss = trainer.step(progress)
        if trainer.steps % 200 == 0:
            print(f"step {trainer.steps}, {progress:.0%}: loss {loss:.3f}", flush=True)
    torch.save(trainer.network.state_dict(), options.state)
    held = from_grammar(grammar.part(HELD_BACK, OF_EACH, inside=True), 250, SEED + 98, minilm)
    logits = judge(Source(held, 1.0, projected(held, trainer.network)), trainer.network)
    slope, shift = calibrate(logits, held.same)
    write(trainer.network, slope, shift)
    print(
        f"{trainer.steps} steps; calibrated by {slope:.3f} and {shift:.3f} on {len(held.a)} pairs that were held back"
    )


if __name__ == "__main__":
    main()
