"""The anchor of modalities: a Gaussian over latents and curved features of them.

A missing modality's latents are regressed on the features of those that are there, for
every pattern from one matrix of second moments: kernel ridge regression, with a ridge
for every latent, since some can be told far better than others. Incomplete training
rows take part by expectation-maximisation.
"""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from .._shared.linalg import cholesky
from .._shared.patterns import rows_by_pattern

# Elements of the conditionals that are kept, and how many at most.
MAX_KEPT_ELEMENTS, MAX_PATTERNS = 30_000_000, 256
# Steps of EM, fewer where so many patterns take too long.
N_EM_STEPS, MIN_EM_STEPS, MAX_EM_SOLVES = 12, 3, 600
# Ridges to choose from, in rows.
RIDGES = tuple(0.03 * 1.78**k for k in range(18))
MIDDLE = 1.0


class Conditional:
    """What one pattern of available modalities says of the others' latents.

    Shape of ``slopes``: (p, D_u), of ``cov``, the covariance of what remains, and of
    its Cholesky factor ``root``: (D_u, D_u). ``latents`` (D,) and ``features`` (P,) are
    masks of what is missing and of what is there.
    """

    def __init__(self, latents, features, slopes, cov):
        self.latents, self.features, self.slopes = latents, features, slopes
        self.cov = cov
        self.root = cholesky(cov)


class BlockAnchor(nn.Module):
    """Gaussian over the latents of all modalities and their features.

    Parameters
    ----------
    owner_z, owner_f : int tensors of shape (D,) and (P,)
        Modality of every latent and of every feature.
    mean : float64 tensor of shape (D + P,)
    moments : float64 tensor of shape (D + P, D + P)
        Covariance, latents first.
    n_rows : float
        Ridges are in rows: they count relative to it.
    """

    def __init__(self, owner_z, owner_f, mean, moments, n_rows):
        super().__init__()
        self.n_rows = float(n_rows)
        for name, tensor in {
            "owner_z": owner_z,
            "owner_f": owner_f,
            "mean": mean,
            "moments": moments,
            "ridge": torch.full_like(mean[: len(owner_z)], MIDDLE),
            "scale": torch.ones_like(mean[: len(owner_z)]),
        }.items():
            self.register_buffer(name, tensor.clone())
        self._known = {}

    def __getstate__(self):
        return {**self.__dict__, "_known": {}}

    def _apply(self, fn, *args, **kwargs):
        self._known = {}
        return super()._apply(fn, *args, **kwargs)

    @property
    def n_latents(self):
        """Latents of all modalities."""
        return len(self.owner_z)

    def _parts(self, available):
        missing = ~available[self.owner_z]
        there = available[self.owner_f]
        d = self.n_latents
        target = torch.cat([missing, torch.zeros_like(there)])
        given = torch.cat([torch.zeros_like(missing), there])
        cross = self.moments[given][:, target]  # (p, D_u)
        among = self.moments[given][:, given]
        return missing, there, cross, among, self.moments[:d, :d][missing][:, missing]

    def slopes(self, available, ridges):
        """Regression slopes under several ridges for all latents: (R, p, D_u)."""
        _, _, cross, among, _ = self._parts(available)
        strength, vectors = torch.linalg.eigh(among)
        pull = vectors.T @ cross  # (p, D_u)
        ridges = torch.as_tensor(ridges, dtype=pull.dtype, device=pull.device)
        shrunk = strength[None] + ridges[:, None] / self.n_rows  # (R, p)
        return vectors @ (pull[None] / shrunk[..., None])

    def conditional(self, available):
        """`Conditional` of a pattern, a bool tensor of shape (M,)."""
        key = tuple(available.tolist())
        found = self._known.get(key)
        if found is None:
            found = self._conditional(available.to(self.mean.device))
            size = 2 * self.n_latents**2 + self.n_latents * len(self.owner_f)
            if len(self._known) >= min(MAX_PATTERNS, 1 + MAX_KEPT_ELEMENTS // size):
                self._known = {}
            self._known[key] = found
        return found

    def _conditional(self, available):
        missing, there, cross, among, own = self._parts(available)
        strength, vectors = torch.linalg.eigh(among)
        shrunk = strength.clamp_min(0)[:, None] + self.ridge[missing] / self.n_rows
        slopes = vectors @ (vectors.T @ cross / shrunk)
        explained = slopes.T @ cross
        cov = own - explained - explained.T + slopes.T @ among @ slopes
        floor = 1e-6 * own.diagonal().mean().clamp_min(1e-12) if len(own) else 0.0
        scale = self.scale[missing]
        cov = (cov + cov.T) / 2 * torch.outer(scale, scale)
        cov.diagonal().add_(floor)
        return Conditional(missing, there, slopes, cov)

    def predict(self, features, conditional):
        """Conditional mean of missing latents, (n, D_u), from features (n, P)."""
        center = self.mean[: self.n_latents][conditional.latents]
        shift = self.mean[self.n_latents :][conditional.features]
        return center + (features[:, conditional.features] - shift) @ conditional.slopes


def fit_moments(latents, features, available, owner_z, owner_f, deadline=math.inf):
    """Fit the Gaussian to rows that may lack modalities.

    Shapes: (n, D), (n, P), (n, M) bool, (D,), (P,). What stands at missing modalities
    is ignored. ``deadline`` is of `time.monotonic`: no step of EM begins after it.

    Returns
    -------
    BlockAnchor
    """
    y = torch.cat([latents, features], 1)
    owner = torch.cat([owner_z, owner_f])
    seen = available[:, owner]
    y = torch.where(seen, y, 0.0)
    count = seen.sum(0).clamp_min(1)
    mean = y.sum(0) / count
    deviation = torch.where(seen, y - mean, 0.0)
    n = len(y)
    if bool(available.all()):
        return BlockAnchor(owner_z, owner_f, mean, deviation.T @ deviation / n, n)
    # Begun with independent latents and features, where nothing tells of what is
    # missing, the first step of EM is this.
    lacking = (deviation.square().sum(0) / count) * (~seen).sum(0)
    shift = deviation.sum(0) / n
    moments = (deviation.T @ deviation + torch.diag(lacking)) / n
    moments = moments - torch.outer(shift, shift)
    anchor = BlockAnchor(owner_z, owner_f, mean + shift, moments, n)
    groups = rows_by_pattern(available)
    n_steps = max(MIN_EM_STEPS, min(N_EM_STEPS, MAX_EM_SOLVES // len(groups)))
    for _ in range(n_steps - 1):
        if time.monotonic() > deadline:
            break
        anchor = _em_step(anchor, y, groups, owner)
    return anchor


def _em_step(anchor, y, groups, owner):
    """Complete moments expected under the anchor, as the next anchor."""
    n = len(y)
    deviation, second = completed(anchor, y, groups, owner)
    shift = deviation.sum(0) / n
    second += deviation.T @ deviation
    moments = second / n - torch.outer(shift, shift)
    return BlockAnchor(
        anchor.owner_z,
        anchor.owner_f,
        anchor.mean + shift,
        (moments + moments.T) / 2,
        n,
    )


def completed(anchor, y, groups, owner):
    """Rows about the mean, completed by the features that are there: the E-step.

    By the precision of the features f, to whose covariance S the ridge is added:
    given those that are there, those that are missing have the inverse C of its
    missing block for a covariance, so that what is factorised is as large as what is
    missing. The latents follow by their regression B = cov(z, f) S^-1 on all features:
    E[z | there] = B E[f | there], and what the missing features leave of it is B C B'.

    Shapes: ``y`` (n, D + P), what stands at missing modalities being ignored;
    ``groups`` as `rows_by_pattern` returns them; ``owner`` (D + P,).

    Returns
    -------
    deviation : tensor of shape (n, D + P)
    cov : tensor of shape (D + P, D + P)
        Conditional covariance of what is missing, summed over the rows.
    """
    d = anchor.n_latents
    moments, ridge = anchor.moments, MIDDLE / anchor.n_rows
    among = moments[d:, d:].clone()
    among.diagonal().add_(ridge)
    precision = torch.cholesky_inverse(torch.linalg.cholesky(among))
    slopes = moments[:d, d:] @ precision  # (D, P)
    left = moments[:d, :d] - slopes @ moments[d:, :d]
    deviation, cov = torch.empty_like(y), torch.zeros_like(moments)
    width = len(owner)
    for pattern, rows in groups:
        missing = ~pattern[owner]
        own = torch.where(missing, 0.0, y[rows] - anchor.mean)
        z, f = (part.nonzero()[:, 0] for part in (missing[:d], missing[d:]))
        if len(f):
            pull = precision.index_select(0, f)
            block = torch.linalg.cholesky(pull.index_select(1, f))
            block = torch.cholesky_inverse(block)
            own[:, d + f] = -(own[:, d:] @ pull.T) @ block
        if len(z):
            own[:, z] = own[:, d:] @ slopes[z].T
        deviation[rows] = own
        if len(f):
            through = slopes[z][:, f] @ block  # cov(z, f | there)
            spread = left[z][:, z] + through @ slopes[z][:, f].T
            block.diagonal().sub_(ridge)
            spread = torch.cat(
                [torch.cat([spread, through], 1), torch.cat([through.T, block], 1)]
            )
            place = torch.cat([z, d + f])
            cell = (place[:, None] * width + place).flatten()
            cov.view(-1).index_add_(0, cell, spread.flatten(), alpha=len(rows))
    return deviation, cov
