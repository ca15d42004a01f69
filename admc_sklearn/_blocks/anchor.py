"""The anchor of modalities: a Gaussian over latents and curved features of them.

The latents of missing modalities are regressed on the features of available ones, for
every pattern from one matrix of second moments: kernel ridge regression, with a ridge
for every latent, since some can be predicted far better than others. Incomplete
training rows take part by expectation-maximisation.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from .._shared.linalg import cholesky
from .._shared.patterns import rows_by_pattern
from .._shared.weights import some_weights, total_weight, weighted

# The conditionals that are kept have at most so many elements, and so many patterns.
MAX_KEPT_ELEMENTS, MAX_PATTERNS = 30_000_000, 256
# Steps of EM times patterns: each is a factorisation, and many take too long.
MAX_EM_SOLVES = 600


@dataclass(frozen=True)
class AnchorSettings:
    """How the anchor is fitted. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    ridges : tuple of float
        Ridges among which each latent's is chosen, in rows. (A ridge for every latent:
        NOTES, "A ridge for every latent". Their range: not measured.)
    first_ridge : float
        Ridge during expectation-maximisation, and where no rows are left out to choose
        one by. (Not measured.)
    n_em_steps, min_em_steps : int
        Steps of expectation-maximisation, and the least of them where many patterns
        make a step slow. (NOTES, "Expectation-maximisation to its end".)
    has_slopes : bool
        False leaves every latent its own mean and variance, whatever is available, to
        measure what the regression is worth. (NOTES, "Ablation".)
    """

    ridges: tuple[float, ...] = tuple(0.03 * 1.78**k for k in range(18))
    first_ridge: float = 1.0
    n_em_steps: int = 12
    min_em_steps: int = 3
    has_slopes: bool = True


DEFAULT = AnchorSettings()


class Conditional:
    """Gaussian of the missing latents under one pattern of available modalities.

    Shape of ``slopes``: (p, D_u), of ``cov``, the residual covariance, and of its
    Cholesky factor ``root``: (D_u, D_u). ``latents`` (D,) is a mask of the missing
    latents, ``features`` (P,) one of the available features.
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
    settings : AnchorSettings
    """

    def __init__(self, owner_z, owner_f, mean, moments, n_rows, settings=DEFAULT):
        super().__init__()
        self.n_rows, self.settings = float(n_rows), settings
        for name, tensor in {
            "owner_z": owner_z,
            "owner_f": owner_f,
            "mean": mean,
            "moments": moments,
            "ridge": torch.full_like(mean[: len(owner_z)], settings.first_ridge),
            "scale": torch.ones_like(mean[: len(owner_z)]),
        }.items():
            self.register_buffer(name, tensor.clone())
        self._kept = {}

    def __getstate__(self):
        return {**self.__dict__, "_kept": {}}

    def _apply(self, fn, *args, **kwargs):
        self._kept = {}
        return super()._apply(fn, *args, **kwargs)

    @property
    def n_latents(self):
        """Number of latents of all modalities."""
        return len(self.owner_z)

    def set_tuning(self, *, ridge=None, scale=None):
        """Set the latents' ridges or the scales of their spread, tensors (D,)."""
        if ridge is not None:
            self.ridge.copy_(ridge)
        if scale is not None:
            self.scale.copy_(scale)
        self._kept = {}

    def _parts(self, available):
        """Masks of missing latents and available features, and blocks of moments."""
        missing = ~available[self.owner_z]
        given_f = available[self.owner_f]
        d = self.n_latents
        target = torch.cat([missing, torch.zeros_like(given_f)])
        given = torch.cat([torch.zeros_like(missing), given_f])
        cross = self.moments[given][:, target]  # (p, D_u)
        among = self.moments[given][:, given]
        own = self.moments[:d, :d][missing][:, missing]  # (D_u, D_u)
        return missing, given_f, cross, among, own

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
        found = self._kept.get(key)
        if found is None:
            found = self._conditional(available.to(self.mean.device))
            size = 2 * self.n_latents**2 + self.n_latents * len(self.owner_f)
            if len(self._kept) >= min(MAX_PATTERNS, 1 + MAX_KEPT_ELEMENTS // size):
                self._kept = {}
            self._kept[key] = found
        return found

    def _conditional(self, available):
        missing, given, cross, among, own = self._parts(available)
        if not self.settings.has_slopes:
            variance = torch.diag(own.diagonal() + 1e-9)
            return Conditional(missing, given, torch.zeros_like(cross), variance)
        strength, vectors = torch.linalg.eigh(among)
        shrunk = strength.clamp_min(0)[:, None] + self.ridge[missing] / self.n_rows
        slopes = vectors @ (vectors.T @ cross / shrunk)
        explained = slopes.T @ cross
        cov = own - explained - explained.T + slopes.T @ among @ slopes
        floor = 1e-6 * own.diagonal().mean().clamp_min(1e-12) if len(own) else 0.0
        scale = self.scale[missing]
        cov = (cov + cov.T) / 2 * torch.outer(scale, scale)
        cov.diagonal().add_(floor)
        return Conditional(missing, given, slopes, cov)

    def predict(self, features, conditional):
        """Conditional mean of missing latents, (n, D_u), from features (n, P)."""
        center = self.mean[: self.n_latents][conditional.latents]
        shift = self.mean[self.n_latents :][conditional.features]
        return center + (features[:, conditional.features] - shift) @ conditional.slopes


def fit_moments(
    latents,
    features,
    available,
    owner_z,
    owner_f,
    deadline=math.inf,
    settings=DEFAULT,
    weight=None,
):
    """Fit the Gaussian to rows that may lack modalities.

    Parameters
    ----------
    latents, features : float64 tensors of shape (n, D) and (n, P)
        Their values at missing modalities are ignored.
    available : bool tensor of shape (n, M)
    owner_z, owner_f : int tensors of shape (D,) and (P,)
        Modality of every latent and of every feature.
    deadline : float
        By `time.monotonic`: no step of EM begins after it.
    settings : AnchorSettings
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.

    Returns
    -------
    BlockAnchor
    """
    y = torch.cat([latents, features], 1)
    owner = torch.cat([owner_z, owner_f])
    seen = available[:, owner]
    y = torch.where(seen, y, 0.0)
    count = weighted(seen, weight).sum(0)
    count = torch.where(count > 0, count, 1)
    mean = weighted(y, weight).sum(0) / count
    deviation = torch.where(seen, y - mean, 0.0)
    counted, n = weighted(deviation, weight), total_weight(weight, y)
    if bool(available.all()):
        moments = deviation.T @ counted / n
        return BlockAnchor(owner_z, owner_f, mean, moments, n, settings)
    # EM begins with independent latents and features. Then missing values have their
    # prior mean and variance, and its first step has this closed form.
    lacking = weighted(deviation.square(), weight).sum(0) / count
    lacking = lacking * weighted(~seen, weight).sum(0)
    shift = counted.sum(0) / n
    moments = (deviation.T @ counted + torch.diag(lacking)) / n
    moments = moments - torch.outer(shift, shift)
    anchor = BlockAnchor(owner_z, owner_f, mean + shift, moments, n, settings)
    groups = rows_by_pattern(available)
    n_steps = min(settings.n_em_steps, MAX_EM_SOLVES // len(groups))
    n_steps = max(settings.min_em_steps, n_steps)
    for _ in range(n_steps - 1):
        if time.monotonic() > deadline:
            break
        anchor = _em_step(anchor, y, groups, owner, weight)
    return anchor


def _em_step(anchor, y, groups, owner, weight):
    """Make the next anchor of the complete moments expected under this one."""
    n = total_weight(weight, y)
    deviation, second = completed(anchor, y, groups, owner, weight)
    counted = weighted(deviation, weight)
    shift = counted.sum(0) / n
    second += deviation.T @ counted
    moments = second / n - torch.outer(shift, shift)
    return BlockAnchor(
        anchor.owner_z,
        anchor.owner_f,
        anchor.mean + shift,
        (moments + moments.T) / 2,
        n,
        anchor.settings,
    )


def completed(anchor, y, groups, owner, weight=None):
    """Rows about the mean, completed by the available features: the E-step.

    It works with the precision of the features f, to whose covariance S the ridge is
    added. Given the available features, the covariance C of the missing ones is the
    inverse of the missing block of that precision, so that only matrices as large as
    the missing part are factorised. The latents z follow by their regression
    B = cov(z, f) S^-1 on all features: E[z | available] = B E[f | available], and the
    uncertainty of the missing features adds B C B' to their covariance.

    Parameters
    ----------
    anchor : BlockAnchor
    y : tensor of shape (n, D + P)
        Its values at missing modalities are ignored.
    groups : list of (pattern, rows)
        As `rows_by_pattern` returns them.
    owner : int tensor of shape (D + P,)
    weight : float tensor of shape (n,), optional
        Weights of the rows.

    Returns
    -------
    deviation : tensor of shape (n, D + P)
    cov : tensor of shape (D + P, D + P)
        Conditional covariance of the missing part, summed over the rows.
    """
    d = anchor.n_latents
    moments, ridge = anchor.moments, anchor.settings.first_ridge / anchor.n_rows
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
            through = slopes[z][:, f] @ block  # cov(z, f | available)
            spread = left[z][:, z] + through @ slopes[z][:, f].T
            block.diagonal().sub_(ridge)
            spread = torch.cat(
                [torch.cat([spread, through], 1), torch.cat([through.T, block], 1)]
            )
            index = torch.cat([z, d + f])
            cell = (index[:, None] * width + index).flatten()
            n_rows = total_weight(some_weights(weight, rows), rows)
            cov.view(-1).index_add_(0, cell, spread.flatten(), alpha=n_rows)
    return deviation, cov
