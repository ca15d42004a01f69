"""Independent encoders: one feature network a modality, fitted on it alone and frozen.

The encoder of an ordinary modality is linear: principal components that explain 99.95 %
of the variance of its columns, the rest being kept as noise. Orthonormal components
make an error of the latents the same error of the columns.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from .._shared.linalg import leading_vectors
from .._shared.weights import (
    mean_and_sd,
    rooted,
    some_weights,
    total_weight,
    weighted,
    weighted_mean,
)

# Encoders are fitted to so many rows at most, in order to bound the time.
MAX_FIT_ROWS = 10_000


@dataclass(frozen=True)
class EncoderSettings:
    """How encoders are fitted. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    explained : float
        Share of a modality's variance that its latents explain. (NOTES, "99.95 % of the
        variance in the latents".)
    max_latents : int
        Latents of a modality at most. (Not measured.)
    min_share : float
        Share of a modality's variance that must be observed in a row for the modality
        to be available there. (Not measured.)
    min_noise : float
        Least residual variance of a column. (Not measured.)
    n_refills : int
        How often missing cells of incomplete rows are filled in by the components and
        these are fitted again. (Not measured.)
    """

    explained: float = 0.9995
    max_latents: int = 128
    min_share: float = 0.5
    min_noise: float = 1e-4
    n_refills: int = 10


DEFAULT = EncoderSettings()


class LinearEncoder:
    """Principal components of one modality's standardised columns.

    Attributes
    ----------
    mean_, noise_ : float64 arrays of shape (d,)
        Mean and residual variance of the columns.
    components_ : float64 array of shape (k, d)
        Orthonormal rows.
    variance_ : float64 array of shape (k,)
        Variance of the latents.
    """

    def fit(self, values, observed, generator, settings=DEFAULT, weight=None):
        """Fit to the rows in which the modality is observed, whole or in part.

        Parameters
        ----------
        values : float array of shape (n, d), standardised
        observed : bool array of shape (n, d)
        generator : numpy.random.Generator
        settings : EncoderSettings
        weight : float array of shape (n,), optional
            Weights of the rows, with a mean near 1.
        """
        self.settings = settings
        rows = np.flatnonzero(observed.any(axis=1))
        if len(rows) > MAX_FIT_ROWS:
            rows = generator.choice(rows, MAX_FIT_ROWS, replace=False)
        x, seen = values[rows].astype(np.float64), observed[rows]
        partial = not seen.all()
        own = some_weights(weight, rows)
        x, count = np.where(seen, x, 0.0), weighted(seen, own).sum(axis=0)
        self.mean_ = weighted(x, own).sum(axis=0) / np.where(count > 0, count, 1)
        self._fit_complete(np.where(seen, x, self.mean_), generator, own)
        for _ in range(settings.n_refills if partial else 0):
            guess = self.decode(self.encode(x, seen)[0])
            self._fit_complete(np.where(seen, x, guess), generator, own)
        return self

    def _fit_complete(self, x, generator, weight):
        self.mean_ = weighted_mean(x, weight)
        centered = rooted(x - self.mean_, weight)
        total = (centered**2).sum()
        limits = self.settings
        size = min(limits.max_latents, *x.shape)
        if min(x.shape) > 4 * limits.max_latents:
            own = torch.Generator().manual_seed(int(generator.integers(2**62)))
            rough = leading_vectors(torch.tensor(centered), size + 16, own)
            strength, components = rough[0].numpy(), rough[1].numpy().T
        else:
            _, strength, components = np.linalg.svd(centered, full_matrices=False)
        explained = np.cumsum(strength**2)
        k = int(np.searchsorted(explained, limits.explained * total)) + 1
        k = max(1, min(size, k))
        self.components_ = components[:k]
        n = total_weight(weight, x)
        self.variance_ = np.maximum(strength[:k] ** 2 / n, 1e-8)
        rest = centered - centered @ self.components_.T @ self.components_
        left = (rest**2).mean(axis=0) * (len(x) / n)
        self.noise_ = np.maximum(left, limits.min_noise)

    @property
    def n_latents(self):
        """Number of latents."""
        return len(self.components_)

    def encode(self, values, observed):
        """Latents, and the rows in which enough is observed for them.

        Where cells are missing, the latents are their posterior mean given the observed
        ones.

        Returns
        -------
        latents : float64 array of shape (n, k)
        available : bool array of shape (n,)
        """
        x = np.where(observed, values - self.mean_, 0.0)
        latents = x @ self.components_.T
        weight = (self.components_**2 * self.variance_[:, None]).sum(0)
        share = observed @ (weight / weight.sum())
        available = share >= self.settings.min_share
        partial = np.flatnonzero((share > 0) & ~observed.all(axis=1))
        if len(partial):
            mean = np.zeros((len(partial), self.n_latents))
            cov = np.diag(self.variance_)
            own = values[partial], observed[partial]
            latents[partial], _ = self.update(mean, cov, *own, wants_root=False)
        return latents, available

    def update(self, mean, cov, values, observed, *, wants_root=True):
        """Posterior of latents given some cells of the block itself.

        Parameters
        ----------
        mean : float array of shape (n, k)
        cov : float array of shape (k, k)
            Mean and covariance of the latents given the other modalities.
        values : float array of shape (n, d)
        observed : bool array of shape (n, d)
        wants_root : bool
            Roots take k times as many numbers as the mean.

        Returns
        -------
        mean : float64 array of shape (n, k)
        root : float64 array of shape (n, k, k), or None
            The root times its transpose is the covariance.
        """
        precision = np.linalg.inv(cov)
        weight = observed / self.noise_  # (n, d)
        residual = np.where(observed, values - self.mean_, 0.0)
        residual = residual - np.where(observed, mean @ self.components_, 0.0)
        out = np.empty(mean.shape)
        roots = np.empty((*mean.shape, len(precision))) if wants_root else None
        step = max(1, 4_000_000 // self.components_.size)
        for lo in range(0, len(mean), step):
            part = slice(lo, lo + step)
            scaled = self.components_ * weight[part, None]  # (b, k, d)
            own = scaled @ self.components_.T
            pull = np.einsum("bkd,bd->bk", scaled, residual[part])
            inverse = np.linalg.inv(own + precision)
            out[part] = mean[part] + np.einsum("bkl,bl->bk", inverse, pull)
            if wants_root:
                roots[part] = np.linalg.cholesky(inverse)
        return out, roots

    def decode(self, latents):
        """Columns of latents: (n, k) -> (n, d)."""
        return latents @ self.components_ + self.mean_

    def variance_of(self, variance):
        """Variance of the columns, for latents of these variances: (n, d)."""
        return variance @ self.components_**2 + self.noise_


class TransformerEncoder:
    """A user's own encoder: any transformer with an inverse.

    Parameters
    ----------
    transformer : object
        With ``transform`` and ``inverse_transform``, from and to columns in their own
        units. A copy of it is used.
    learn : callable or None
        Function of a transformer, rows of shape (n, d) in the columns' own units and a
        seed, which returns the fitted transformer. None where it is fitted.
    name : str
        The transformer and its modality, for errors.
    mean, scale : arrays of shape (d,)
        Mean and standard deviation of the columns, which come in standardised.

    Attributes
    ----------
    The same as those of `LinearEncoder`. ``noise_`` is the error of the round trip. In
    a block that is observed in part, observed cells do not inform the missing ones.
    """

    def __init__(self, transformer, learn, name, mean, scale):
        self.transformer, self.learn, self.name = transformer, learn, name
        self.mean, self.scale = mean, scale

    def fit(self, values, observed, generator, settings=DEFAULT, weight=None):
        """Fit to the rows that are complete, and measure the round trip in them.

        Parameters as of `LinearEncoder.fit`; the transformer itself knows no weights.

        Raises
        ------
        ValueError
            If no row is complete, the transformer fails, or its result does not have
            the shape of the rows or is not finite. The message names the modality.
        """
        self.settings = settings
        whole = observed.all(axis=1)
        rows, own = values[whole].astype(np.float64), some_weights(weight, whole)
        if not len(rows):
            raise ValueError(
                f"{self.name} has no row in which all columns of the modality are "
                "observed, to be fitted to and measured on: leave this modality out "
                "of encoders, or give it fewer columns."
            )
        self.latent_mean_, self.latent_scale_ = 0.0, 1.0
        try:
            if self.learn is None:
                transformer = copy.deepcopy(self.transformer)
            else:
                units, seed = rows * self.scale + self.mean, generator.integers(2**31)
                transformer = self.learn(self.transformer, units, int(seed))
            self.transformer, self.learn = transformer, None
            latents = self._latents(rows)
            back = self._columns(latents)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name} fails on the {len(rows)} complete rows of its "
                f"{rows.shape[1]} columns: {error}. Take one that can be fitted to "
                "them, pass a fitted one in sklearn.frozen.FrozenEstimator, or leave "
                "this modality out of encoders."
            ) from error
        if back.shape != rows.shape or len(latents) != len(rows):
            raise ValueError(
                f"{self.name}: inverse_transform gives an array of shape {back.shape} "
                f"for latents of shape {latents.shape}, where the rows have shape "
                f"{rows.shape}. An encoder must be made for these columns alone."
            )
        if not (np.isfinite(latents).all() and np.isfinite(back).all()):
            raise ValueError(
                f"{self.name} gives values that are not finite: it must map every "
                "complete row to finite latents, and these to finite values."
            )
        error = weighted_mean((rows - back) ** 2, own)
        self.noise_ = np.maximum(error, settings.min_noise)
        self.latent_mean_, spread = mean_and_sd(latents, own)
        # All latents have one scale, so that together they vary as the columns do.
        variance = mean_and_sd(rows, own)[1] ** 2
        total = np.sqrt(variance.sum() / max(1e-12, (spread**2).sum()))
        self.latent_scale_ = 1 / max(total, 1e-12)
        self.variance_ = np.maximum((spread / self.latent_scale_) ** 2, 1e-8)
        self.column_variance_ = mean_and_sd(back, own)[1] ** 2
        return self

    def _latents(self, values):
        raw = _dense(self.transformer.transform(values * self.scale + self.mean))
        if raw.ndim != 2:
            raise ValueError(
                "its transform must return an array with two dimensions, and returned "
                f"one of shape {raw.shape}"
            )
        return (raw - self.latent_mean_) / self.latent_scale_

    def _columns(self, latents):
        raw = latents * self.latent_scale_ + self.latent_mean_
        back = _dense(self.transformer.inverse_transform(raw))
        if back.shape[1:] != self.mean.shape:  # `fit` raises the error
            return back
        return (back - self.mean) / self.scale

    @property
    def n_latents(self):
        """Number of latents."""
        return len(self.variance_)

    def encode(self, values, observed):
        """Encode as `LinearEncoder.encode` does; missing cells count as the mean."""
        available = observed.mean(axis=1) >= self.settings.min_share
        latents = np.zeros((len(values), self.n_latents))
        rows = np.flatnonzero(available)
        if len(rows):
            latents[rows] = self._latents(
                np.where(observed[rows], values[rows], 0.0).astype(np.float64)
            )
        return latents, available

    def update(self, mean, cov, values, observed):
        """Return the given mean and the root of cov: see `LinearEncoder.update`."""
        del values, observed
        root = np.linalg.cholesky(cov)
        return mean, np.broadcast_to(root, (len(mean), *root.shape)).copy()

    def decode(self, latents):
        """Columns of latents: (n, k) -> (n, d)."""
        return self._columns(latents)

    def variance_of(self, variance):
        """Variance of the columns, in proportion to that of the latents: (n, d)."""
        share = variance.sum(axis=1) / self.variance_.sum()
        return share[:, None] * self.column_variance_ + self.noise_


def _dense(array):
    """Convert a transformer's result, perhaps a sparse matrix, to float64."""
    array = array.toarray() if hasattr(array, "toarray") else array
    return np.asarray(array, dtype=np.float64)
