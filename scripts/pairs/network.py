"""The verifier's network in torch, for training; backends/zoo/verifier.py builds the same as a graph."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

WIDTH, HEADS, INNER, LAYERS, STATES = 128, 4, 256, 2, 768
SCALE = 16.0
_MASKED, _FAR, _PLACES, _DROPPED = -1e4, 8, 64, 0.1


class Block(nn.Module):
    """A transformer layer over the tokens of both texts, that knows which tokens are equal and how far apart."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.bias = nn.Parameter(torch.zeros(HEADS, 4))  # same text; the other one: same token, another token; unused
        self.rel = nn.Parameter(torch.zeros(HEADS, 2 * _FAR + 1))
        self.drop = nn.Dropout(_DROPPED)

    def forward(self, x: Tensor, same_text: Tensor, same_id: Tensor, distance: Tensor, real: Tensor) -> Tensor:
        """Return the tokens' new states."""
        pairs, tokens, _ = x.shape
        parts = self.qkv(self.n1(x)).view(pairs, tokens, 3, HEADS, WIDTH // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        kind = torch.where(same_text, 0, torch.where(same_id, 1, 2))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(WIDTH // HEADS) + self.bias[:, kind].permute(1, 0, 2, 3)
        scores = scores + self.rel[:, distance][None] * same_text[:1, None]
        mixed = scores.masked_fill(~real[:, None, None, :], _MASKED).softmax(-1) @ v
        x = x + self.drop(self.o(mixed.transpose(1, 2).reshape(pairs, tokens, WIDTH)))
        return x + self.drop(self.down(F.gelu(self.up(self.n2(x)))))


class Network(nn.Module):
    """Token vectors of two texts to the logit that one answer serves both; exchanging the texts changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.norm = nn.Linear(STATES, WIDTH), nn.LayerNorm(WIDTH)
        self.pos = nn.Embedding(_PLACES, WIDTH)
        nn.init.normal_(self.pos.weight, std=0.1)
        self.scale, self.idb = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(2.0))
        self.q, self.cmp = nn.Linear(WIDTH, WIDTH), nn.Linear(4 * WIDTH + 3, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.fn, self.gate = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1)
        self.out = nn.Sequential(nn.Linear(2 * WIDTH + 1, 64), nn.GELU(), nn.Linear(64, 1))
        self.drop = nn.Dropout(_DROPPED)

    def project(self, states: Tensor) -> Tensor:
        """Return the vectors of tokens whose hidden states are given."""
        projected: Tensor = self.norm(self.proj(states))
        return projected

    def forward(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], similarity: Tensor) -> Tensor:
        """Return one logit a pair; each text has vectors [pairs, tokens, WIDTH] and ids, 0 where there is no token."""
        x, ids = torch.cat([first[0], second[0]], 1), torch.cat([first[1], second[1]], 1)
        real = ids != 0
        sizes = (first[1].shape[1], second[1].shape[1])
        side = torch.cat([torch.full((size,), which) for which, size in enumerate(sizes)])
        place = torch.cat([torch.arange(size) for size in sizes])
        same_text = (side[:, None] == side[None, :])[None]
        same_id = ids[:, :, None] == ids[:, None, :]
        distance = (place[None, :] - place[:, None]).clamp(-_FAR, _FAR) + _FAR
        y = self._compared(x, place, same_id, (~same_text) & real[:, None, :])
        for block in self.blocks:
            y = block(y, same_text.expand(len(x), -1, -1), same_id, distance, real)
        y = self.fn(y)
        gate = self.gate(y).squeeze(-1).masked_fill(~real, _MASKED).softmax(-1)
        largest = y.masked_fill(~real[:, :, None], _MASKED).amax(1)
        found = torch.cat([(gate[:, :, None] * y).sum(1), largest, similarity], -1)
        logits: Tensor = self.out(self.drop(found)).squeeze(-1)
        return logits

    def _compared(self, x: Tensor, place: Tensor, same_id: Tensor, across: Tensor) -> Tensor:
        """Align each token with those of the other text and compare it with what it is aligned to."""
        unit = F.normalize(self.q(x), dim=-1)
        likeness = unit @ unit.transpose(1, 2)
        scores = self.scale * 4 * likeness + self.idb * same_id
        weights = scores.masked_fill(~across, _MASKED).softmax(-1)
        aligned = weights @ x
        best = likeness.masked_fill(~across, -1).amax(-1, keepdim=True)
        shared = (same_id & across).any(-1, keepdim=True).float()
        places = place.float()[None, :, None]
        shift = (weights @ places.expand(len(x), -1, 1) - places) / _FAR
        found = torch.cat([x, aligned, (x - aligned).abs(), x * aligned, best, shared, shift], -1)
        return self.drop(F.gelu(self.cmp(found))) + x + self.pos(place.clamp(max=_PLACES - 1))[None]
