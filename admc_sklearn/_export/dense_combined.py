"""Cells and blocks together as operators.

The latents of blocks that are missing follow from the features of the others, by a
regression for every pattern, and from one call of the denoiser. Rows that hold a part
of a block are taken out, completed by a solve of one size for all blocks, and put back.
"""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .dense import DenseModel, inverted


class DenseCombined(nn.Module):
    """Cells and blocks of a model: standardised values to completed ones.

    Parameters
    ----------
    model : CombinedModel
    statistic : "mean" or float
        Of the cells; blocks have their mean, which is their median too.
    """

    def __init__(self, model, statistic):
        super().__init__()
        model = copy.deepcopy(model).move_to("cpu")
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
        own = zip(blocks.encoders[: self.n_blocks], blocks.slices, strict=False)
        self.parts = DenseParts(list(own), self._patterns(anchor, len(blocks.encoders)))
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
        for number, found in enumerate(self._patterns(anchor, n_modalities)):
            rows, lost = found.features.nonzero(), found.latents.nonzero()[:, 0]
            slopes[number, rows, lost] = found.slopes
            spread[number, lost] = found.cov.diagonal().sqrt()
        self.register_buffer("slopes", slopes)
        self.register_buffer("spread", spread)

    def _patterns(self, anchor, n_modalities):
        """Yield the conditional of every pattern; bit j of its number is block j."""
        for number in range(2**self.n_blocks):
            available = torch.ones(n_modalities, dtype=torch.bool)
            for j in range(self.n_blocks):
                available[j] = bool(number >> j & 1)
            yield anchor.conditional(available)

    def _number(self, available):
        """Count up the blocks (B, k) to the number of their pattern, (B,)."""
        bits = torch.tensor([2**k for k in range(self.n_blocks)])
        return (available.long() * bits).sum(1)

    def _encode(self, k, values):
        """Latents of modality k, (B, l)."""
        centered = values.double() - getattr(self, f"mean_{k}")
        return centered @ getattr(self, f"components_{k}").T

    def forward(self, values, observed):
        """Completed values (B, d) and posteriors, of standardised ones (B, d)."""
        own = [torch.as_tensor(block) for block in self.partition.blocks]
        blocks = [(values[:, block], observed[:, block]) for block in own]
        latents = torch.cat([self._encode(k, x) for k, (x, _) in enumerate(blocks)], 1)
        available = self.parts.available(blocks)
        some = self.parts.take(blocks, available, self._number)
        latents = self.parts.encoded(latents, some)
        out, posteriors = values, []
        if self.cells is not None:
            cells = torch.as_tensor(self.partition.cells)
            beside = latents, available
            x, o = self._beside(values[:, cells], observed[:, cells], *beside)
            found, posteriors = self.cells(x, o)
            means = found
            if self.cells.statistic != "mean":
                means = self.cells.completed(x, o, posteriors, "mean")
            out = out.index_copy(1, cells, found[:, : len(cells)])
            last = self._encode(self.n_blocks, self._expanded(means))
            latents = torch.cat([latents, last], 1)
        mean = self.parts.completed(latents, available, some, self._conditioned)
        for k, (block, (x, o)) in enumerate(zip(own, blocks, strict=True)):
            decoded = mean[:, self.latents_of[k]] @ getattr(self, f"components_{k}")
            decoded = (decoded + getattr(self, f"mean_{k}")).to(values.dtype)
            out = out.index_copy(1, block, torch.where(o, x, decoded))
        return out, posteriors

    def _conditioned(self, latents, whole):
        """Mean of all latents given those of some blocks, (B, D) -> (B, D).

        As `BlockModel.complete`; ``whole`` (B, k) marks the blocks.
        """
        number = self._number(whole)
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

    def _beside(self, values, observed, latents, available):
        """Cells with the leading latents of the blocks beside them."""
        parts, seen = [values], [observed]
        for k in range(self.n_blocks):
            shown = available[:, [k]]
            root = getattr(self, f"variance_{k}").sqrt()
            leads = latents[:, self.latents_of[k]] / root
            leads = leads[:, : self.partition.n_leads].clamp(-10, 10)
            leads = torch.where(shown, leads, torch.zeros_like(leads))
            parts.append(leads.to(values.dtype))
            seen.append(shown.expand(-1, leads.shape[1]))
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


class DenseParts(nn.Module):
    """Latents of blocks in rows that hold a part of a block.

    Latents have a normal distribution, beforehand or given the other blocks, and the
    cells of the part are linear in them, with noise; see `LinearEncoder.update`.

    Parameters
    ----------
    blocks : list of (LinearEncoder, slice)
        Of every block, and the place of its latents.
    patterns : iterable of Conditional
        Of all patterns of blocks.
    """

    def __init__(self, blocks, patterns):
        super().__init__()
        self.size = max(encoder.n_latents for encoder, _ in blocks)
        self.latents_of = [own for _, own in blocks]
        self.min_share = [encoder.settings.min_share for encoder, _ in blocks]
        patterns = list(patterns)
        for k, (encoder, own) in enumerate(blocks):
            constants = {
                "center": encoder.mean_,
                "components": encoder.components_,
                "noise": encoder.noise_,
                "weight": (encoder.components_**2 * encoder.variance_[:, None]).sum(0),
                "prior": self._padded(np.diag(1 / encoder.variance_)),
                "precision": np.stack([self._precision(p, own) for p in patterns]),
            }
            for name, array in constants.items():
                self.register_buffer(f"{name}_{k}", torch.as_tensor(array))

    def _padded(self, precision):
        """Precision of `size` latents, those beyond a block's own of variance 1."""
        out = np.eye(self.size)
        out[: len(precision), : len(precision)] = precision
        return out

    def _precision(self, conditional, own):
        """Precision of a block's latents given the others, (l, l), padded."""
        lost = conditional.latents.numpy()
        if not lost[own.start]:
            return self._padded(np.eye(0))
        at = (np.cumsum(lost) - 1)[own]
        return self._padded(np.linalg.inv(conditional.cov.numpy()[np.ix_(at, at)]))

    def available(self, blocks):
        """Whether enough is observed of each block, (B, k).

        ``blocks`` are pairs of values and whether they are observed, (B, d) twice.
        """
        shares = []
        for k, (_, seen) in enumerate(blocks):
            weight = getattr(self, f"weight_{k}")
            # onnxruntime does not multiply a matrix by a vector as torch does.
            shares.append((seen.double() * (weight / weight.sum())).sum(1))
        least = torch.tensor(self.min_share, dtype=torch.float64)
        return torch.stack(shares, 1) >= least

    def take(self, blocks, available, number):
        """Rows that hold parts, and what is computed of them once.

        ``number`` gives the numbers of patterns.
        """
        partial = torch.stack([o.any(1) & ~o.all(1) for _, o in blocks], 1)
        rows = partial.any(1).nonzero()[:, 0]
        some = SimpleNamespace(rows=rows, partial=partial[rows])
        some.blocks = [(x[rows].double(), o[rows]) for x, o in blocks]
        places = torch.arange(len(blocks))
        some.others = [available[rows] & (places != k) for k in places.tolist()]
        precisions = []
        for k, (_, seen) in enumerate(some.blocks):
            own = self._own_precision(k, seen)
            given = getattr(self, f"precision_{k}")[number(some.others[k])]
            precisions += [own + getattr(self, f"prior_{k}"), own + given]
        # All of them at once, so that the steps are written out once.
        covariances = inverted(torch.stack(precisions, 1), self.size).unbind(1)
        some.before, some.after = covariances[::2], covariances[1::2]
        return some

    def _own_precision(self, k, seen):
        """Precision of latents by the block's own cells, (u, l, l), padded."""
        components = getattr(self, f"components_{k}")
        components = F.pad(components, (0, 0, 0, self.size - components.shape[0]))
        weight = seen.double() / getattr(self, f"noise_{k}")
        return (components * weight[:, None]) @ components.T

    def _updated(self, k, mean, covariance, values, seen):
        """Latents (u, l) given the block's own cells too, (u, l)."""
        components = getattr(self, f"components_{k}")
        residual = values - getattr(self, f"center_{k}") - mean @ components
        residual = torch.where(seen, residual, torch.zeros_like(residual))
        pull = (residual / getattr(self, f"noise_{k}")) @ components.T
        size = components.shape[0]
        return mean + (covariance[:, :size, :size] @ pull[..., None])[..., 0]

    def encoded(self, latents, some):
        """Latents of all blocks, (B, D), with those of parts as they are encoded."""
        found = []
        for k, own in enumerate(self.latents_of):
            plain = latents[some.rows][:, own]
            start = torch.zeros_like(plain)
            updated = self._updated(k, start, some.before[k], *some.blocks[k])
            found.append(torch.where(some.partial[:, [k]], updated, plain))
        return latents.index_copy(0, some.rows, torch.cat(found, 1))

    def completed(self, latents, available, some, conditioned):
        """Means of latents given all that is observed, (B, D).

        ``conditioned`` gives the means given blocks that are available.
        """
        n, u, k = latents.shape[0], some.rows.shape[0], len(self.latents_of)
        # Rows with parts come once more for every block, as if it were not there.
        given = [latents, *[latents[some.rows]] * k]
        shown = [available, *some.others]
        mean = conditioned(torch.cat(given), torch.cat(shown))
        mean, others = mean[:n], mean[n:].reshape(k, u, latents.shape[1])
        found, parts = mean[some.rows], []
        for k, own in enumerate(self.latents_of):
            start = others[k][:, own]
            updated = self._updated(k, start, some.after[k], *some.blocks[k])
            parts.append(torch.where(some.partial[:, [k]], updated, found[:, own]))
        rest = found[:, self.latents_of[-1].stop :]
        return mean.index_copy(0, some.rows, torch.cat([*parts, rest], 1))
