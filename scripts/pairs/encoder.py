"""minilm in torch and half precision, for the many texts of a training: its weights are those of the built graph.

Vectors differ from the graph's own by less than a hundredth; the processors that multiply such numbers do it in a tenth
of the time.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

LAYERS, WIDTH, TOKEN_WIDTH = (2, 5), 384, 128
_DEPTH, _HEADS, _EPSILON, _TOKEN_EPSILON, _SCALE, _MOST = 6, 12, 1e-12, 1e-5, 16.0, 127


class Encoder:
    """The layers of the built minilm."""

    def __init__(self, model: Path) -> None:
        found = onnx.load(model).graph.initializer
        self._weights = {each.name: torch.from_numpy(numpy_helper.to_array(each).astype(np.float32)) for each in found}
        # A linear layer wants its weight the other way round.
        self._weights |= {
            name: value.T.contiguous().bfloat16()
            for name, value in self._weights.items()
            if name.endswith(("dense.weight", "qkv.weight"))
        }

    @torch.no_grad()
    def run(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], Tensor]:
        """Return the texts' embeddings and the states of LAYERS side by side, short texts padded."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        real = torch.tensor([[at < len(row) for at in range(longest)] for row in rows])
        x = self._norm("embeddings.LayerNorm", self._weights["words"][ids] + self._weights["places"][:longest])
        states = []
        for layer in range(_DEPTH):
            x = self._layer(f"encoder.layer.{layer}.", x, real[:, None, None, :])
            states += [x] if layer in LAYERS else []
        embeddings = F.normalize((x * real[:, :, None]).sum(1), dim=-1)
        return embeddings.numpy(), torch.cat(states, -1)

    def token_vectors(self, states: Tensor) -> NDArray[np.int8]:
        """Return the projected states in int8, as the graph does."""
        names = ("kernel", "bias", "norm_weight", "norm_bias")
        kernel, bias, scale, shift = (self._weights[f"tokens.{name}"] for name in names)
        projected = F.layer_norm(states @ kernel + bias, (TOKEN_WIDTH,), scale, shift, _TOKEN_EPSILON)
        rounded: NDArray[np.int8] = (projected * _SCALE).round().clamp(-_MOST, _MOST).to(torch.int8).numpy()
        return rounded

    def _layer(self, prefix: str, x: Tensor, real: Tensor) -> Tensor:
        texts, tokens, _ = x.shape
        parts = self._linear(f"{prefix}qkv", x).view(texts, tokens, 3, _HEADS, WIDTH // _HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real).transpose(1, 2).reshape(texts, tokens, WIDTH)
        mixed = self._linear(f"{prefix}attention.output.dense", mixed)
        x = self._norm(f"{prefix}attention.output.LayerNorm", x + mixed)
        risen = F.gelu(self._linear(f"{prefix}intermediate.dense", x))
        return self._norm(f"{prefix}output.LayerNorm", x + self._linear(f"{prefix}output.dense", risen))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"].bfloat16())

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x.float(), (WIDTH,), weight, bias, _EPSILON)
