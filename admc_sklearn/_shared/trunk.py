"""Layers that the networks of cells and of blocks are built of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def linear(n_in, n_out, generator):
    """Make an `nn.Linear` with its usual start, by a generator of ours on the CPU."""
    # Without a start of its own. `nn.utils.skip_init` imports sympy, in a second.
    layer = nn.Linear(n_in, n_out, device="meta")
    bound = 1 / math.sqrt(n_in)
    for name, shape in (("weight", (n_out, n_in)), ("bias", (n_out,))):
        start = torch.empty(shape).uniform_(-bound, bound, generator=generator)
        setattr(layer, name, nn.Parameter(start))
    return layer


def matrices_of(*modules):
    """Weights of the linear layers of some modules, a list."""
    layers = [layer for module in modules for layer in module.modules()]
    return [layer.weight for layer in layers if isinstance(layer, nn.Linear)]


def dropout_factors(rate, shape, generator, device):
    """Factors of entries, 0 at this rate and else above 1, on the generator's device.

    The mean is 1. They are an argument of the networks: training draws them.
    """
    factors = torch.empty(shape, device=device)
    return factors.bernoulli_(1 - rate, generator=generator).div_(1 - rate)


class TokenAttention(nn.Module):
    """Pre-norm self-attention and a small feed-forward, both residual.

    A head for every 16 of the width: narrower ones cost more and gain nothing.

    Shape in and out: (B, n_tokens, width).
    """

    def __init__(self, width, generator):
        super().__init__()
        self.n_heads = max(1, width // 16)
        self.norm = nn.LayerNorm(width)
        self.qkv = linear(width, 3 * width, generator)
        self.out = linear(width, width, generator)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            linear(width, 2 * width, generator),
            nn.GELU(),
            linear(2 * width, width, generator),
        )

    def _split(self, tokens):
        n_rows, n_tokens, _ = tokens.shape
        qkv = self.qkv(self.norm(tokens)).view(n_rows, n_tokens, 3, self.n_heads, -1)
        return qkv.permute(2, 0, 3, 1, 4)  # three of (B, heads, tokens, w)

    def weights(self, tokens):
        """Attention of every token to all, (B, n_tokens, n_tokens), mean over heads."""
        query, key, _ = self._split(tokens)
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return torch.softmax(scores, -1).mean(1)

    def forward(self, tokens):
        query, key, value = self._split(tokens)
        mixed = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(tokens.shape))
        return tokens + self.feed_forward(tokens)


class FeedForward(nn.Module):
    """Pre-norm residual block, with dropout where it is given factors.

    Shape in, of the factors and out: (B, hidden).
    """

    def __init__(self, hidden, generator):
        super().__init__()
        self.first = nn.Sequential(
            nn.LayerNorm(hidden), linear(hidden, hidden, generator), nn.GELU()
        )
        self.second = linear(hidden, hidden, generator)

    def forward(self, x, factors=None):
        inner = self.first(x)
        return x + self.second(inner if factors is None else inner * factors)
