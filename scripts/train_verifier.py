"""Train the verifier of pairs; write models/verifier/weights.npz.

    .venv/bin/python scripts/train_verifier.py [--steps N] [--start FILE] [--state FILE] [--finish]

Needs torch, which is no dependency of the project (`.venv/bin/pip install torch`; the CPU build is enough), and the
built minilm (scripts/setup). It learns from pairs drawn from scripts/data/verifier, from the tune half of the pairs of
kmemo and of some of checklist's capabilities, and from the questions of banking77's training file; whatever of it is
missing is left out, and said. Every ninth block of the hand-written questions is held back: the output is calibrated
on those.

What is kept is the running mean of the weights. It is left in --state every 250 steps, and --finish calibrates and
writes what lies there: so a run that was ended early is of use. One thread and one seed: the same steps give the same
weights.

minilm's states are projected to token vectors as models/minilm/tokens.npz says, which was learned with the first
verifier; --project learns it anew in the first third of the steps, and writes it too.

The committed weights are those of this command without options, about a quarter of an hour on what was left of two busy
cores. The share of banking77's questions was chosen by the tune halves of banking77's test file and of those of
checklist's capabilities that nothing was learned from: with 0.12 they kept 12.2 and 34.6 % of the paraphrases, with 0.3
15.8 and 43.9 %.
"""

import argparse
import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from scripts.pairs.gathering import Gathered, from_banking, from_grammar, from_sets
from scripts.pairs.grammar import Grammar, load
from scripts.pairs.hidden import Minilm
from scripts.pairs.network import SCALE, Network
from scripts.running_gateway import ROOT

DATA = ROOT.parent / "shared" / "data"
TOKENS = ROOT / "models" / "minilm" / "tokens.npz"
WEIGHTS = ROOT / "models" / "verifier" / "weights.npz"
BATCH, RATE, WARM_UP, REPEATED, SMOOTHED = 128, 1e-3, 200, 0.02, 0.02
# How much of the running mean stays at each step, and after how many steps it is left on disk.
KEPT, LEFT = 0.998, 250
HELD_BACK, OF_EACH = 4, 9
SEED = 1
STEPS, ROUNDS = 3000, 6000


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

    def __init__(self, sources: list[Source], rate: float, start: Path | None, *, fixed: bool) -> None:
        torch.manual_seed(SEED)
        self._rng = np.random.default_rng(SEED)
        self.sources = sources
        self.network = Network()
        if fixed:
            load_projection(self.network)
        if start is not None:
            load_weights(self.network, start)
        self._rate = rate
        self.mean = copy.deepcopy(self.network)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
        self._queue: list[tuple[Source, NDArray[np.int64]]] = []
        self.steps = 0

    def fix_projection(self) -> None:
        """Fix the projection, rounded as it is kept, and make the int8 vectors of all tokens with it."""
        for part in (self.network.proj, self.network.norm):
            for parameter in part.parameters():
                parameter.data = parameter.data.half().float()
                parameter.requires_grad_(False)
        self.sources = [replace(each, fixed=projected(each.found, self.network)) for each in self.sources]
        self.mean.load_state_dict(self.network.state_dict())
        self._queue.clear()

    def step(self, progress: float) -> float:
        """Learn from one batch; `progress` goes from 0 to 1."""
        rate = self._rate * min(1, (self.steps + 1) / WARM_UP) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
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
        with torch.no_grad():
            new = 1 - min(KEPT, self.steps / (self.steps + 10))
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.network.parameters()), new)
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
    slope, shift = fitted.detach().tolist()
    return slope, shift


def load_projection(network: Network) -> None:
    """Take the projection that the built minilm has, and keep it."""
    with np.load(TOKENS) as arrays:
        found = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    network.proj.weight.data, network.proj.bias.data = found["kernel"].T.contiguous(), found["bias"]
    network.norm.weight.data, network.norm.bias.data = found["norm_weight"], found["norm_bias"]
    for parameter in (*network.proj.parameters(), *network.norm.parameters()):
        parameter.requires_grad_(requires_grad=False)


def load_weights(network: Network, path: Path) -> None:
    """Take weights as they are written, but for the calibration."""
    with np.load(path) as arrays:
        found = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    kept = {name: value for name, value in found.items() if not name.startswith("calibration.")}
    network.load_state_dict(network.state_dict() | kept)


def write(network: Network, slope: float, shift: float, to: Path, *, projection: bool) -> None:
    """Write the weights in half precision: the projection is minilm's, the rest the verifier's."""
    arrays = {name: value.numpy().astype(np.float16) for name, value in network.state_dict().items()}
    if projection:
        tokens = {"kernel": arrays["proj.weight"].T, "bias": arrays["proj.bias"]}
        tokens |= {"norm_weight": arrays["norm.weight"], "norm_bias": arrays["norm.bias"]}
        np.savez_compressed(TOKENS, **tokens)
    kept = {name: value for name, value in arrays.items() if not name.startswith(("proj.", "norm."))}
    calibration = {"calibration.slope": np.float32(slope), "calibration.shift": np.float32(shift)}
    np.savez_compressed(to, **kept, **calibration)


def gather(grammar: Grammar, rounds: int, minilm: Minilm) -> list[Source]:
    """Return what is learned from."""
    learned = from_grammar(grammar, rounds, SEED, minilm)
    found = [(learned, 1.0)]
    for share, others in ((0.1, from_sets(DATA, minilm)), (0.3, from_banking(DATA, minilm))):
        found += [] if others is None else [(others, share)]
    return [Source(each, share, _fixed(each)) for each, share in found]


def _fixed(found: Gathered) -> NDArray[np.int8] | None:
    return found.hidden.states if found.hidden.states.dtype == np.int8 else None


def train(options: argparse.Namespace, grammar: Grammar, minilm: Minilm) -> Network:
    """Learn, and return the mean of the weights."""
    sources = gather(grammar, options.rounds, minilm)
    trainer = Trainer(sources, options.rate, options.start, fixed=minilm.fixed)
    fixed = minilm.fixed
    print(f"{', '.join(str(len(each.found.a)) for each in trainer.sources)} pairs", flush=True)
    losses: list[float] = []
    for at in range(options.steps):
        if not fixed and at >= options.steps / 3:
            trainer.fix_projection()
            fixed = True
        losses.append(trainer.step(at / options.steps))
        if trainer.steps % LEFT == 0 or trainer.steps == options.steps:
            print(f"step {trainer.steps}: loss {np.mean(losses[-LEFT:]):.3f}", flush=True)
            torch.save(trainer.mean.state_dict(), options.state)
    return trainer.mean


def main() -> None:
    """Gather, train, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of learning")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of lessons that are drawn")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest learning rate")
    parser.add_argument("--start", type=Path, help="weights to go on from; left out: it learns from nothing")
    parser.add_argument("--state", type=Path, default=Path("verifier.pt"), help="where the state is left")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="what is written")
    parser.add_argument("--finish", action="store_true", help="learn no more: calibrate and write what --state has")
    parser.add_argument("--project", action="store_true", help="learn the projection of minilm's states anew")
    parser.add_argument("--models", type=Path, default=ROOT / "var" / "models", help="where the built minilm is")
    options = parser.parse_args()
    torch.set_num_threads(1)
    minilm = Minilm(options.models / "minilm", fixed=not options.project)
    grammar = load(ROOT / "scripts" / "data" / "verifier")
    if options.finish:
        network = Network()
        network.load_state_dict(torch.load(options.state))
    else:
        network = train(options, grammar.part(HELD_BACK, OF_EACH, inside=False), minilm)
    held = from_grammar(grammar.part(HELD_BACK, OF_EACH, inside=True), 250, SEED + 98, minilm)
    fixed = _fixed(held)
    logits = judge(Source(held, 1.0, projected(held, network) if fixed is None else fixed), network)
    slope, shift = calibrate(logits, held.same)
    write(network, slope, shift, options.weights, projection=options.project)
    print(f"calibrated by {slope:.3f} and {shift:.3f} on {len(held.a)} pairs that were held back")


if __name__ == "__main__":
    main()
