"""The attention-based diffusion network: attention between modality tokens.

Observed modalities come in clean, missing ones as the anchor's mean and their noisy
deviation from it. The logarithm of the noise's standard deviation is an input, so that
any schedule can be used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from .._shared.trunk import (
    FeedForward,
    TokenAttention,
    dropout_factors,
    linear,
    matrices_of,
)


@dataclass(frozen=True)
class DenoiserSize:
    """Size of the network.

    Parameters
    ----------
    width : int
        Width of the tokens.
    hidden : int
        Width of the layers that mix all modalities.
    n_attention, n_layers : int
        Layers of attention between tokens, and layers that mix all modalities.
    """

    width: int
    hidden: int
    n_attention: int
    n_layers: int


class ModalityDenoiser(nn.Module):
    """Correction of the anchor for every modality.

    Parameters
    ----------
    sizes : list of int
        Latents of each modality; the i-th has ``sizes[i]`` inputs and outputs.
    size : DenoiserSize
    generator : torch.Generator on the CPU
        It draws the weights.

    Shape in: value, deviation (B, D), observed (B, M) bool, log_sigma (B, 1), at most
    0 where the noise is infinite; out: (B, D), 0 at the start.
    """

    def __init__(self, sizes, size, generator):
        super().__init__()
        width, hidden = size.width, size.hidden
        self.sizes = list(sizes)
        self.embed = nn.ModuleList(linear(2 * k + 4, width, generator) for k in sizes)
        self.attention = nn.ModuleList(
            TokenAttention(width, generator) for _ in range(size.n_attention)
        )
        self.mix = linear(len(self.sizes) * width, hidden, generator)
        self.layers = nn.ModuleList(
            FeedForward(hidden, generator) for _ in range(size.n_layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.heads = nn.ModuleList(linear(width + hidden, k, generator) for k in sizes)
        for head in self.heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @property
    def hidden_matrices(self):
        """Weights of wide layers that mix all tokens, a list."""
        return matrices_of(self.mix, self.layers)

    def tokens(self, value, deviation, observed, log_sigma):
        """Embed modalities: (B, M, width)."""
        flag = observed.to(value.dtype)
        noise = torch.cat(
            [log_sigma / 4, torch.cos(log_sigma), torch.sin(log_sigma)], 1
        )
        parts = zip(
            self.embed,
            value.split(self.sizes, 1),
            deviation.split(self.sizes, 1),
            flag.split(1, 1),
            strict=True,
        )
        return torch.stack(
            [
                embed(torch.cat([v, e, f, noise * (1 - f)], 1))
                for embed, v, e, f in parts
            ],
            1,
        )

    def factors(self, rate, n_rows, generator):
        """Draw dropout's factors of the tokens, and of each layer, a list."""
        shapes = [(n_rows, len(self.sizes), self.embed[0].out_features)]
        shapes += [(n_rows, self.mix.out_features)] * len(self.layers)
        device = self.mix.weight.device
        return [dropout_factors(rate, shape, generator, device) for shape in shapes]

    def forward(self, value, deviation, observed, log_sigma, factors=None):
        tokens = self.tokens(value, deviation, observed, log_sigma)
        for block in self.attention:
            tokens = block(tokens)
        own, *inner = factors or [None] * (1 + len(self.layers))
        row = self.mix((tokens if own is None else tokens * own).flatten(1))
        for layer, factor in zip(self.layers, inner, strict=True):
            row = layer(row, factor)
        row = self.norm(row)
        out = [
            head(torch.cat([token, row], 1))
            for head, token in zip(self.heads, tokens.unbind(1), strict=True)
        ]
        return torch.cat(out, 1) / math.sqrt(2)

    @torch.no_grad()
    def attention_weights(self, value, deviation, observed, log_sigma):
        """Attention of each modality to the others, mean over heads and layers.

        Shape: (B, M, M); rows sum to one.
        """
        tokens = self.tokens(value, deviation, observed, log_sigma)
        total = 0.0
        for block in self.attention:
            total = total + block.weights(tokens)
            tokens = block(tokens)
        return total / len(self.attention)
