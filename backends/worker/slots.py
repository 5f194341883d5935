"""The key-value cache of the sequences in flight: one slot a sequence, live slots in front. Knows no text and no job.

All slots of a layer lie in one array, so that the first n of them are a contiguous piece that the runtime reads in
place. A sequence that leaves is replaced by the last one, which costs one copy of the positions that it has filled.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.manifest import Manifest, ManifestError

Floats = NDArray[np.float32]


class Slots:
    """The cache of a session whose graph follows the slot contract; `filled[i]` positions of slot i are valid."""

    def __init__(self, session: ort.InferenceSession, manifest: Manifest) -> None:
        self._session = session
        self._manifest = manifest
        shapes = {each.name: each.shape for each in session.get_inputs()}
        self._layers = sum(name.startswith("past_key.") for name in shapes)
        if self._layers == 0:
            raise ManifestError("the graph has no input past_key.0; a chat model needs its cache as inputs")
        heads, context, width = shapes["past_key.0"][1:]
        if context != manifest.max_tokens:
            raise ManifestError(f"limits: max_tokens: {manifest.max_tokens}; the graph's cache holds {context}")
        self._pasts = {
            name: np.zeros((manifest.max_batch, heads, context, width), np.float32)
            for layer in range(self._layers)
            for name in (f"past_key.{layer}", f"past_value.{layer}")
        }
        self.filled = np.zeros(manifest.max_batch, np.int64)
        self._steps: dict[int, _Step] = {}

    def prefill(self, first: int, rows: Sequence[Sequence[int]]) -> Floats:
        """Read prompts into the slots from `first` on; return the logits after each one's last token, (rows, V)."""
        end = first + len(rows)
        self.filled[first:end] = 0
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        feed = {name: past[first:end] for name, past in self._pasts.items()}
        feed |= {self._manifest.inputs["ids"]: ids, self._manifest.inputs["past_length"]: self.filled[first:end]}
        news = [name.replace("past", "new") for name in self._pasts]
        logits, *made = self._session.run([self._manifest.output, *news], feed)
        for past, new in zip(self._pasts.values(), made, strict=True):
            past[first:end, :, : ids.shape[1]] = new
        self.filled[first:end] = [len(row) for row in rows]
        return np.stack([logits[place, len(row) - 1] for place, row in enumerate(rows)])

    def decode(self, tokens: Sequence[int]) -> Floats:
        """Append one token to each of the first len(tokens) slots; return the logits after it, (len(tokens), V)."""
        count = len(tokens)
        if count not in self._steps:
            self._steps[count] = _Step(self._session, self._manifest, self._pasts, self.filled, count)
        logits = self._steps[count].run(tokens)
        self.filled[:count] += 1
        return logits

    def move(self, source: int, target: int) -> None:
        """Put the sequence of one slot into another, whose own is gone."""
        filled = self.filled[source]
        for past in self._pasts.values():
            past[target, :, :filled] = past[source, :, :filled]
        self.filled[target] = filled


class _Step:
    """One decoding step for a fixed number of sequences: its arrays are bound to the runtime once."""

    def __init__(
        self,
        session: ort.InferenceSession,
        manifest: Manifest,
        pasts: dict[str, Floats],
        filled: NDArray[np.int64],
        count: int,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._rows = np.arange(count)
        self._filled = filled[:count]
        self._ids = np.zeros((count, 1), np.int64)
        self._pasts = [past[:count] for past in pasts.values()]
        self._news = [np.zeros((count, past.shape[1], 1, past.shape[3]), np.float32) for past in pasts.values()]
        vocabulary = next(each.shape[-1] for each in session.get_outputs() if each.name == manifest.output)
        self._logits = np.zeros((count, 1, vocabulary), np.float32)
        inputs: dict[str, NDArray[Any]] = {
            manifest.inputs["ids"]: self._ids,
            manifest.inputs["past_length"]: self._filled,
        }
        inputs |= dict(zip(pasts, self._pasts, strict=True))
        outputs = {manifest.output: self._logits}
        outputs |= {name.replace("past", "new"): new for name, new in zip(pasts, self._news, strict=True)}
        for name, array in inputs.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self, tokens: Sequence[int]) -> Floats:
        self._ids[:, 0] = tokens
        self._session.run_with_iobinding(self._binding)
        for past, new in zip(self._pasts, self._news, strict=True):
            past[self._rows, :, self._filled] = new[:, :, 0]
        return self._logits[:, 0]
