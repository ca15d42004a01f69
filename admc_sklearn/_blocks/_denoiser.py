"""The attention-based diffusion network: attention between modality tokens.

Observed modalities come in clean, missing ones as the anchor's mean and their noisy
deviation from it. It knows the noise level, and no schedule.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from .._denoiser import FeedForward, TokenAttention


class ModalityDenoiser(nn.Module):
    """Correction of the anchor for every modality.

    Parameters
    ----------
    sizes : list of int
        Latents of each modality; the i-th has ``sizes[i]`` inputs and outputs.
    width, hidden, n_attention, n_layers : int
    dropout : float

    Shape in: value, deviation (B, D), observed (B, M) bool, log_sigma (B, 1), at most
    0 where the noise is infinite; out: (B, D), 0 at the start.
    """

    def __init__(self, sizes, *, width, hidden, n_attention, n_layers, dropout):
        super().__init__()
        self.sizes = list(sizes)
        self.embed = nn.ModuleList(nn.Linear(2 * k + 4, width) for k in sizes)
        self.attention = nn.ModuleList(
            TokenAttention(width) for _ in range(n_attention)
        )
        self.mix = nn.Linear(len(self.sizes) * width, hidden)
        self.layers = nn.ModuleList(
            FeedForward(hidden, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(width + hidden, k) for k in sizes)
        for head in self.heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def tokens(self, value, deviation, observed, log_sigma):
        """Embed modalities: (B, M, width)."""
        flag = observed.to(value.dtype)
        level = torch.cat(
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
                embed(torch.cat([v, e, f, level * (1 - f)], 1))
                for embed, v, e, f in parts
            ],
            1,
        )

    def forward(self, value, deviation, observed, log_sigma):
        tokens = self.tokens(value, deviation, observed, log_sigma)
        for block in self.attention:
            tokens = block(tokens)
        row = self.mix(self.dropout(tokens).flatten(1))
        for layer in self.layers:
            row = layer(row)
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
