"""Trains the head of intents on vectors and labels with numpy. Knows neither where they come from nor any runtime.

Members are trained from different seeds, each with dropout, smoothed labels and a cosine schedule; their mean is then
one wider head, because side by side their hidden units do not touch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.zoo.intents import Floats, Head

Labels = npt.NDArray[np.int64]

# A vector of length 1 and width 384 has elements near 0.05; the first layer sees them near 1.
_SCALE = np.float32(20)
_DECAYS = np.float32(0.9), np.float32(0.99)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What training is told: the defaults were chosen on a held-out part of the training file."""

    members: int = 2
    hidden: int = 256
    epochs: int = 30
    batch: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.5
    smoothing: float = 0.1


def train(vectors: Floats, labels: Labels, schedule: Schedule, seed: int) -> Head:
    """Train a head on vectors [rows, width] and labels [rows] that count from 0 without a gap."""
    generators = np.random.default_rng(seed).spawn(schedule.members)
    inputs, targets = vectors * _SCALE, _smoothed(labels, schedule.smoothing)
    return _joined([_member(inputs, targets, schedule, generator) for generator in generators])


def accuracy(head: Head, vectors: Floats, labels: Labels) -> float:
    """Return the share of vectors whose most probable label is the right one."""
    logits = np.maximum(vectors @ head.rise + head.rise_bias, 0) @ head.fall + head.fall_bias
    return float((logits.argmax(axis=1) == labels).mean())


def _smoothed(labels: Labels, smoothing: float) -> Floats:
    classes = int(labels.max()) + 1
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] += 1 - smoothing
    return targets


def _member(inputs: Floats, targets: Floats, schedule: Schedule, generator: np.random.Generator) -> list[Floats]:
    width, classes = inputs.shape[1], targets.shape[1]
    weights = [
        generator.standard_normal((width, schedule.hidden), np.float32) / np.float32(width**0.5),
        np.zeros(schedule.hidden, np.float32),
        generator.standard_normal((schedule.hidden, classes), np.float32) / np.float32(schedule.hidden**0.5),
        np.zeros(classes, np.float32),
    ]
    optimiser = _AdamW(weights, schedule.weight_decay)
    steps = schedule.epochs * (len(inputs) // schedule.batch)
    for step, rows in enumerate(_batches(len(inputs), schedule, generator)):
        rate = schedule.rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        kept = generator.random((len(rows), schedule.hidden), np.float32) >= schedule.dropout
        keep = kept.astype(np.float32) / np.float32(1 - schedule.dropout)
        optimiser.step(_gradients(weights, inputs[rows], targets[rows], keep), rate)
    return weights


def _batches(count: int, schedule: Schedule, generator: np.random.Generator) -> Iterator[Labels]:
    """Yield the row numbers of every batch of every epoch; an epoch leaves out the rows that do not fill a batch."""
    for _ in range(schedule.epochs):
        order = generator.permutation(count)
        for start in range(0, count - schedule.batch + 1, schedule.batch):
            yield order[start : start + schedule.batch]


def _gradients(weights: list[Floats], inputs: Floats, targets: Floats, keep: Floats) -> list[Floats]:
    """Return the gradients of the mean cross-entropy; `keep` is the dropout mask over the hidden units."""
    rise, rise_bias, fall, fall_bias = weights
    before = inputs @ rise + rise_bias
    hidden = np.maximum(before, 0) * keep
    logits = hidden @ fall + fall_bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (exponents / exponents.sum(axis=1, keepdims=True) - targets) / np.float32(len(inputs))
    back = (error @ fall.T) * keep * (before > 0)
    return [inputs.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


class _AdamW:
    """Adam with decoupled weight decay on the matrices; it changes the weights in place."""

    def __init__(self, weights: list[Floats], decay: float) -> None:
        self._weights = weights
        self._decay = decay
        self._means = [np.zeros_like(weight) for weight in weights]
        self._squares = [np.zeros_like(weight) for weight in weights]
        self._steps = 0

    def step(self, gradients: list[Floats], rate: float) -> None:
        self._steps += 1
        first, second = _DECAYS
        for i, gradient in enumerate(gradients):
            self._means[i] += (1 - first) * (gradient - self._means[i])
            self._squares[i] += (1 - second) * (gradient * gradient - self._squares[i])
            mean, square = self._means[i] / (1 - first**self._steps), self._squares[i] / (1 - second**self._steps)
            decay = self._decay if gradient.ndim > 1 else 0.0
            self._weights[i] -= np.float32(rate) * (
                mean / (np.sqrt(square) + np.float32(1e-8)) + decay * self._weights[i]
            )


def _joined(members: list[list[Floats]]) -> Head:
    """Fold the members, whose mean gives the logits, and the scale of the inputs into one head."""
    rises, rise_biases, falls, fall_biases = zip(*members, strict=True)
    count = np.float32(len(members))
    return Head(
        rise=np.concatenate(rises, axis=1) * _SCALE,
        rise_bias=np.concatenate(rise_biases),
        fall=(np.concatenate(falls) / count).astype(np.float32),
        fall_bias=(np.sum(fall_biases, axis=0) / count).astype(np.float32),
    )
