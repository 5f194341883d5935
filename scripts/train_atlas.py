"""Train atlas, the demonstration chat model, and write its weights and tokenizer to models/atlas.

Needs torch, which is no dependency of the project: `.venv/bin/pip install torch` (the CPU build is enough). The
learning rate follows the clock, so `--minutes` is what the training takes on any machine; with `--checkpoint` an
interrupted run goes on where it stopped. On a busy machine one thread is faster than several, and glibc should keep
its memory: MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000.

The committed weights took 54 minutes on one shared core; on the way the shares of the relations were moved towards the
harder ones, and the garbling of questions was added after a quarter of it.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from backends.zoo.atlas_lessons import Lessons
from backends.zoo.atlas_phrasing import Grammar
from backends.zoo.atlas_world import load_world

HOME = Path(__file__).resolve().parent.parent / "models" / "atlas"
PAD, QUESTION, ANSWER, END = range(4)
LAYERS, HEADS, WIDTH, VOCABULARY = 4, 4, 160, 3072
IGNORED = -100
ROWS, LONGER = 80, 1.6


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded token ids and what to predict at each place (IGNORED outside the answer), int64 [rows, tokens]."""

    ids: torch.Tensor
    targets: torch.Tensor


def train_tokenizer(lessons: Lessons) -> Tokenizer:
    """Learn a byte-level BPE, in which digits stand alone, from questions and answers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<question>", "<answer>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    drawn = (text for _ in range(150_000) for text in lessons.draw("train"))
    tokenizer.train_from_iterator(drawn, trainer)
    return tokenizer


def lesson(lessons: Lessons, tokenizer: Tokenizer, split: str, rows: int) -> list[Batch]:
    """Draw `rows` questions; rows of like length stand together in a batch, so that little is spent on padding."""
    drawn = [lessons.draw(split) for _ in range(rows)]
    texts = [f"<question>{question}<answer>{answer}<end>" for question, answer in drawn]
    sequences = sorted((encoding.ids for encoding in tokenizer.encode_batch_fast(texts)), key=len)
    groups: list[list[list[int]]] = []
    for sequence in sequences:
        if not groups or len(sequence) > LONGER * len(groups[-1][0]):
            groups.append([])
        groups[-1].append(sequence)
    return [_batch(group) for group in groups]


def _batch(sequences: list[list[int]]) -> Batch:
    ids = np.full((len(sequences), max(map(len, sequences))), PAD)
    targets = np.full_like(ids, IGNORED)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        answer = sequence.index(ANSWER)
        targets[row, answer : len(sequence) - 1] = sequence[answer + 1 :]
    return Batch(torch.from_numpy(ids[:, :-1]), torch.from_numpy(targets[:, :-1]))


class Block(nn.Module):
    """One pre-norm layer: causal attention with rotary positions, then a squared-ReLU network."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.LayerNorm(WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def attend(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Let places look back, [rows, tokens, WIDTH] to the same shape; cos and sin are [tokens, head size / 2]."""
        rows, tokens, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(rows, tokens, 3 * HEADS, WIDTH // HEADS).transpose(1, 2)
        first, second = qkv[:, : 2 * HEADS].chunk(2, dim=-1)
        qk = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
        mixed = F.scaled_dot_product_attention(qk[:, :HEADS], qk[:, HEADS:], qkv[:, 2 * HEADS :], is_causal=True)
        return x + self.out(mixed.transpose(1, 2).reshape(rows, tokens, WIDTH))

    def think(self, x: torch.Tensor) -> torch.Tensor:
        """Work on each place by itself, [..., WIDTH] to the same shape."""
        return x + self.down(F.relu(self.up(self.norm2(x))).square())


class Network(nn.Module):
    """The decoder; the embedding is also the output layer."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=False)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and targets at the places that count, [places, vocabulary] and [places]."""
        cos, sin = rotations(batch.ids.shape[1], WIDTH // HEADS)
        x = F.layer_norm(self.embedding(batch.ids), (WIDTH,))
        for layer in self.layers[:-1]:
            x = layer.think(layer.attend(x, cos, sin))
        counted = batch.targets != IGNORED
        x = self.layers[-1].think(self.layers[-1].attend(x, cos, sin)[counted])
        return self.norm(x) @ self.embedding.weight.T, batch.targets[counted]


def rotations(tokens: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary positions, [tokens, head / 2] each."""
    angles = torch.arange(tokens)[:, None] * 10000.0 ** (-torch.arange(0, head, 2) / head)
    return angles.cos(), angles.sin()


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal, for the matrices: it learns rare facts in fewer steps than Adam."""

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95})

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                step = orthogonal(weight.grad.lerp(momentum, group["momentum"]))
                tall = max(1, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * 0.05).add_(step, alpha=-group["lr"] * tall)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return roughly the nearest (semi-)orthogonal matrix, by five Newton-Schulz steps."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@torch.no_grad()
def exact_accuracy(network: Network, questions: list[Batch]) -> float:
    """Return the share of answers in which every token is right (greedy decoding gives the same)."""
    right = rows = 0
    for batch in questions:
        logits, targets = network(batch)
        wrong = torch.zeros_like(batch.targets, dtype=torch.bool)
        wrong[batch.targets != IGNORED] = logits.argmax(-1) != targets
        right += int((~wrong.any(dim=1)).sum())
        rows += len(wrong)
    return right / rows


def learn(network: Network, batches: list[Batch]) -> float:
    """Set the gradients of the mean loss over all batches and return it."""
    places = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    network.zero_grad()
    total = 0.0
    for batch in batches:
        logits, targets = network(batch)
        loss = F.cross_entropy(logits, targets, reduction="sum") / places
        loss.backward()
        total += loss.item()
    return total


def pace(progress: float) -> float:
    """Return the learning rate's factor: a short warm-up, a plateau, and a long way down to nothing."""
    return min(1.0, progress / 0.01, (1 - progress) / 0.8)


def train(network: Network, lessons: Lessons, tokenizer: Tokenizer, minutes: float, checkpoint: Path | None) -> None:
    """Train in place until the time is over, printing loss and the accuracy on the `dev` phrasings."""
    matrices = [weight for layer in network.layers for weight in layer.parameters() if weight.ndim == 2]
    others = [weight for weight in network.parameters() if not any(weight is matrix for matrix in matrices)]
    optimizers = [Muon(matrices, 0.02), torch.optim.AdamW(others, 0.004, betas=(0.9, 0.98), weight_decay=0.0)]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    held_back = lesson(lessons, tokenizer, "dev", 1500)
    spent, step, loss_mean, shown = 0.0, 0, 0.0, 0.0
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        spent, step = state["spent"], state["step"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    while spent < minutes * 60:
        began = time.monotonic()
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * max(0.0, pace(spent / (minutes * 60)))
        loss = learn(network, lesson(lessons, tokenizer, "train", ROWS))
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        loss_mean = loss_mean * 0.99 + loss * 0.01 if loss_mean else loss
        step += 1
        spent += time.monotonic() - began
        if spent - shown > min(100.0, minutes * 6):
            shown = spent
            accuracy = exact_accuracy(network, held_back)
            print(f"{spent:6.0f} s  step {step:6d}  loss {loss_mean:.4f}  exact on dev {accuracy:.2%}", flush=True)
            if checkpoint:
                state = {"network": network.state_dict(), "spent": spent, "step": step}
                torch.save(state | {"optimizers": [each.state_dict() for each in optimizers]}, checkpoint)
    print(f"done after {step} steps, exact on dev {exact_accuracy(network, held_back):.2%}", flush=True)


def export(network: Network, path: Path) -> None:
    """Write the weights as float16, matrices as [inputs, outputs]."""
    arrays = {"heads": np.array(HEADS)}
    for name, weight in network.state_dict().items():
        matrix = weight.T if weight.ndim == 2 and not name.startswith("embedding") else weight
        arrays[name.removesuffix(".weight")] = matrix.numpy().astype(np.float16)
    np.savez_compressed(path, **arrays)


def main() -> None:
    """Parse the arguments, train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=40.0, help="how long to train")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads to use")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="where to keep the state of an unfinished training")
    parser.add_argument("--output", type=Path, default=HOME, help="directory for weights.npz and tokenizer.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)
    world = load_world(HOME / "world.yaml")
    lessons = Lessons(world, Grammar(world, HOME / "phrasings.yaml"), arguments.seed)
    if not (arguments.output / "tokenizer.json").exists():
        train_tokenizer(lessons).save(str(arguments.output / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(arguments.output / "tokenizer.json"))
    network = Network(tokenizer.get_vocab_size())
    print(f"{sum(weight.numel() for weight in network.parameters()):,} parameters", flush=True)
    train(network, lessons, tokenizer, arguments.minutes, arguments.checkpoint)
    export(network, arguments.output / "weights.npz")


if __name__ == "__main__":
    main()
