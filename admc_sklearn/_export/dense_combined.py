"""Cells and blocks together as operators of fixed size.

A block is there where all its cells are. The latents of those that are not follow from
the features of those that are, by a regression for every pattern, and from one call of
the denoiser.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from .dense import DenseModel


class DenseCombined(nn.Module):
    """Cells and blocks of a model: standardised values to completed ones.

    Where only some cells of a block are there, the others stay NaN, and those that are
    there inform nothing.

    Parameters
    ----------
    model : CombinedModel
    statistic : "mean" or float
        Of the cells; blocks have their mean, which is their median too.
    """

    def __init__(self, model, statistic):
        super().__init__()
        model = copy.deepcopy(model).move_to("cpu").eval()
        self.partition, blocks = model.partition, model.blocks
        self.cells = None
        if model.cells is not None:
            self.cells = DenseModel(model.cells, statistic)
        self.places = [] if self.cells is None else self.cells.places
        self.n_levels = [int(model.n_levels[j]) for j in self.partition.cells]
        for k, encoder in enumerate(blocks.encoders):
            for name in ("mean_", "components_", "variance_"):
                array = torch.as_tensor(getattr(encoder, name))
                self.register_buffer(f"{name}{k}", array)
        self.n_blocks = len(self.partition.blocks)
        self.latents_of = blocks.slices
        self.features, anchor = blocks.features, blocks.anchor
        self.register_buffer("owner", anchor.owner_z)
        self.register_buffer("feature_owner", blocks.features.owner)
        center, shift = anchor.mean.tensor_split([anchor.n_latents])
        self.register_buffer("center", center)
        self.register_buffer("shift", shift)
        self._store_patterns(anchor, len(blocks.encoders))
        self.register_buffer("scale", blocks.scale)
        self.register_buffer("gate", blocks.gate)
        self.denoiser = blocks.denoiser if bool(blocks.gate != 0) else None
        self.log_sigma = blocks.diffusion.max_log_sigma  # of infinite noise

    def _store_patterns(self, anchor, n_modalities):
        """Regressions of the latents for every pattern, and their spreads, as tables.

        Shapes: (2^k, P, D) and (2^k, D) for k blocks.
        """
        k, d = self.n_blocks, anchor.n_latents
        slopes = torch.zeros(2**k, len(self.shift), d, dtype=torch.float64)
        spread = torch.zeros(2**k, d, dtype=torch.float64)
        for number in range(2**k):
            available = torch.ones(n_modalities, dtype=torch.bool)
            available[:k] = torch.tensor([bool(number >> j & 1) for j in range(k)])
            found = anchor.conditional(available)
            rows, lost = found.features.nonzero(), found.latents.nonzero()[:, 0]
            slopes[number, rows, lost] = found.slopes
            spread[number, lost] = found.cov.diagonal().sqrt()
        self.register_buffer("slopes", slopes)
        self.register_buffer("spread", spread)

    def _encode(self, k, values):
        """Latents of modality k, (B, l)."""
        centered = values.double() - getattr(self, f"mean_{k}")
        return centered @ getattr(self, f"components_{k}").T

    def forward(self, values, observed):
        """Completed values (B, d) and posteriors, of standardised ones (B, d)."""
        own = [torch.as_tensor(block) for block in self.partition.blocks]
        whole = torch.stack([observed[:, block].all(1) for block in own], 1)
        latents = [self._encode(k, values[:, block]) for k, block in enumerate(own)]
        latents = [
            torch.where(whole[:, [k]], z, torch.zeros_like(z))
            for k, z in enumerate(latents)
        ]
        out, posteriors = values, []
        if self.cells is not None:
            cells = torch.as_tensor(self.partition.cells)
            x, o = self._beside(values[:, cells], observed[:, cells], latents, whole)
            found, posteriors = self.cells(x, o)
            means = found
            if self.cells.statistic != "mean":
                means = self.cells.completed(x, o, posteriors, "mean")
            out = out.index_copy(1, cells, found[:, : len(cells)])
            latents.append(self._encode(self.n_blocks, self._expanded(means)))
        mean = self._conditioned(torch.cat(latents, 1), whole)
        for k, block in enumerate(own):
            decoded = mean[:, self.latents_of[k]] @ getattr(self, f"components_{k}")
            decoded = (decoded + getattr(self, f"mean_{k}")).to(values.dtype)
            absent = ~observed[:, block].any(1, keepdim=True)
            lost = torch.full_like(decoded, torch.nan)
            decoded = torch.where(absent, decoded, lost)
            decoded = torch.where(observed[:, block], values[:, block], decoded)
            out = out.index_copy(1, block, decoded)
        return out, posteriors

    def _conditioned(self, latents, whole):
        """Mean of all latents given those of whole blocks, (B, D) -> (B, D).

        As `BlockModel.complete`.
        """
        bits = torch.tensor([2**k for k in range(self.n_blocks)])
        number = (whole.long() * bits).sum(1)
        # Cells are one modality more, which is always there.
        beside = (
            torch.ones_like(whole[:, :1]) if self.cells is not None else whole[:, :0]
        )
        available = torch.cat([whole, beside], 1)
        features = self._features(latents) - self.shift
        shown = available[:, self.feature_owner]
        given = torch.where(shown, features, torch.zeros_like(features))
        mean = self.center + self._regressed(given, number)
        mean = torch.where(available[:, self.owner], latents, mean)
        if self.denoiser is None:
            return mean
        value = ((mean - self.center) / self.scale).float().clamp(-8.0, 8.0)
        log_sigma = torch.full_like(value[:, :1], self.log_sigma)
        found = self.denoiser(value, torch.zeros_like(value), available, log_sigma)
        return mean + self.gate * self.spread[number] * found

    def _features(self, latents):
        """Features of all modalities, (B, D) -> (B, P)."""
        maps = self.features.maps
        if not len(maps):
            return latents * self.features.scale
        parts = zip(maps, self.latents_of, strict=True)
        return torch.cat([features(latents[:, own]) for features, own in parts], 1)

    def _regressed(self, given, number):
        """Deviations of latents by the regression of each row's pattern, (B, D)."""
        if len(self.slopes) > 16:
            return (given[:, None] @ self.slopes[number])[:, 0]
        every = given[None] @ self.slopes  # faster than a matrix for every row
        own = number[None, :, None].expand(1, -1, every.shape[2])
        return every.gather(0, own)[0]

    def _beside(self, values, observed, latents, whole):
        """Cells with the leading latents of the blocks beside them."""
        parts, seen = [values], [observed]
        for k, z in enumerate(latents):
            root = getattr(self, f"variance_{k}").sqrt()
            leads = (z / root)[:, : self.partition.n_leads].clamp(-10, 10)
            parts.append(leads.to(values.dtype))
            seen.append(whole[:, [k]].expand(-1, leads.shape[1]))
        return torch.cat(parts, 1), torch.cat(seen, 1)

    def _expanded(self, cells):
        """Completed cells as numbers: levels as standardised indicators."""
        parts = []
        for j, k in enumerate(self.n_levels):
            column = cells[:, j].double()[:, None]
            if k:
                hit = torch.trunc(column) == torch.arange(k)
                parts.append(hit.double() * math.sqrt(k))
            else:
                parts.append(column.clamp(-10, 10))
        return torch.cat(parts, 1)
