"""The denoiser: attention between modality tokens, then a wide network over them all.

Its input is a partly absorbed row without a noise level or a schedule: the flags show
how much of the row is absorbed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..._shared.trunk import FeedForward, TokenAttention, linear


@dataclass(frozen=True)
class NetworkSize:
    """Widths and depths of a `Denoiser`, and its rate of dropout."""

    width: int
    hidden: int
    n_attention: int
    n_layers: int
    dropout: float


class TokenEmbedding(nn.Module):
    """One token a modality, from the features of its columns.

    Every modality has weights of its own. Modalities are runs of ``group`` columns.

    Shape in: (B, d, f); out: (B, n_tokens, width).
    """

    def __init__(self, n_columns, n_features, width, generator, group=1):
        super().__init__()
        self.group = group
        self.n_tokens = math.ceil(n_columns / group)
        self.padding = self.n_tokens * group - n_columns
        fan_in = group * n_features
        self.weight = nn.Parameter(
            torch.randn(self.n_tokens, fan_in, width, generator=generator)
            / math.sqrt(fan_in)
        )
        self.bias = nn.Parameter(torch.zeros(self.n_tokens, 1, width))

    def forward(self, features):
        if self.padding:
            features = F.pad(features, (0, 0, 0, self.padding))
        x = features.reshape(features.shape[0], self.n_tokens, -1).transpose(0, 1)
        return torch.baddbmm(self.bias, x, self.weight).transpose(0, 1)


class Denoiser(nn.Module):
    """From cell features to one summary of the row.

    Attention mixes single tokens; the feed-forward over all tokens together combines
    them. Both together serve better than either alone at equal cost.

    Parameters
    ----------
    n_columns, n_features : int
    group : int
        Columns of a token.
    size : NetworkSize
    generator : torch.Generator on the CPU

    Shape in: (B, d, f); out: (B, hidden).
    """

    def __init__(self, n_columns, n_features, group, size, generator):
        super().__init__()
        width, hidden = size.width, size.hidden
        self.n_features, self.hidden = n_features, hidden
        self.embedding = TokenEmbedding(n_columns, n_features, width, generator, group)
        self.attention = nn.ModuleList(
            TokenAttention(width, generator) for _ in range(size.n_attention)
        )
        self.mix = linear(self.embedding.n_tokens * width, hidden, generator)
        self.layers = nn.ModuleList(
            FeedForward(hidden, generator) for _ in range(size.n_layers)
        )
        self.norm = nn.LayerNorm(hidden)

    def tokens(self, features, extra=None):
        """Embed cells: (B, n_tokens, width)."""
        tokens = self.embedding(features)
        return tokens if extra is None else tokens.index_add(1, *extra)

    def share_of_tokens(self, member):
        """Mean over the columns of each token: (d, M) array -> (T, M)."""
        size, d = self.embedding.group, len(member)
        return np.stack([member[k : k + size].mean(0) for k in range(0, d, size)])

    def attention_weights(self, features, extra=None):
        """Attention of each token to all, (B, T, T), mean over heads and layers."""
        tokens, found = self.tokens(features, extra), []
        for block in self.attention:
            found.append(block.weights(tokens))
            tokens = block(tokens)
        return torch.stack(found).mean(0)

    def forward(self, features, extra=None, factors=None):
        """Summarise rows; ``extra``: tokens (m,) and what is added there, (B, m, w).

        ``factors``: of dropout in each layer, (n_layers, B, hidden).
        """
        tokens = self.tokens(features, extra)
        for block in self.attention:
            tokens = block(tokens)
        row = self.mix(tokens.flatten(1))
        for k, layer in enumerate(self.layers):
            row = layer(row, None if factors is None else factors[k])
        return self.norm(row)
