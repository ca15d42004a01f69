"""Independent encoders: one feature network a modality, fitted on it alone and frozen.

Linear where linear is enough: principal components that explain 99.95 % of the variance
of the modality's columns, the rest being kept as noise. Orthonormal components make an
error of the latents the same error of the columns.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from .._shared.linalg import leading_vectors

EXPLAINED = 0.9995
MAX_LATENTS = 128
MAX_FIT_ROWS = 10_000
# Share of a block's variance that must be observed for its latents to be trusted.
MIN_SHARE = 0.5
MIN_NOISE = 1e-4
N_REFILLS = 10


class LinearEncoder:
    """Principal components of one modality's standardised columns.

    Attributes
    ----------
    mean_, noise_ : float64 arrays of shape (d,)
        Mean and residual variance of the columns.
    components_ : float64 array of shape (k, d)
        Orthonormal rows.
    variance_ : float64 array of shape (k,)
        Of the latents.
    """

    def fit(self, values, observed, generator):
        """Fit to the rows in which the modality is there, whole or in part.

        Parameters
        ----------
        values : float array of shape (n, d), standardised
        observed : bool array of shape (n, d)
        generator : numpy.random.Generator
        """
        rows = np.flatnonzero(observed.any(axis=1))
        if len(rows) > MAX_FIT_ROWS:
            rows = generator.choice(rows, MAX_FIT_ROWS, replace=False)
        x, seen = values[rows].astype(np.float64), observed[rows]
        partial = not seen.all()
        x = np.where(seen, x, 0.0)
        self.mean_ = x.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        self._fit_complete(np.where(seen, x, self.mean_), generator)
        for _ in range(N_REFILLS if partial else 0):
            guess = self.decode(self.encode(x, seen)[0])
            self._fit_complete(np.where(seen, x, guess), generator)
        return self

    def _fit_complete(self, x, generator):
        self.mean_ = x.mean(axis=0)
        centered = x - self.mean_
        total = (centered**2).sum()
        size = min(MAX_LATENTS, *x.shape)
        if min(x.shape) > 4 * MAX_LATENTS:
            own = torch.Generator().manual_seed(int(generator.integers(2**62)))
            rough = leading_vectors(torch.tensor(centered), size + 16, own)
            strength, components = rough[0].numpy(), rough[1].numpy().T
        else:
            _, strength, components = np.linalg.svd(centered, full_matrices=False)
        explained = np.cumsum(strength**2)
        k = int(np.searchsorted(explained, EXPLAINED * total)) + 1
        k = max(1, min(size, k))
        self.components_ = components[:k]
        self.variance_ = np.maximum(strength[:k] ** 2 / len(x), 1e-8)
        rest = centered - centered @ self.components_.T @ self.components_
        self.noise_ = np.maximum((rest**2).mean(axis=0), MIN_NOISE)

    @property
    def n_latents(self):
        """Number of latents."""
        return len(self.components_)

    def encode(self, values, observed):
        """Latents, and in which rows enough is observed to trust them.

        Where cells are missing the latents are their posterior mean given the others.

        Returns
        -------
        latents : float64 array of shape (n, k)
        available : bool array of shape (n,)
        """
        x = np.where(observed, values - self.mean_, 0.0)
        latents = x @ self.components_.T
        weight = (self.components_**2 * self.variance_[:, None]).sum(0)
        share = observed @ (weight / weight.sum())
        available = share >= MIN_SHARE
        partial = np.flatnonzero((share > 0) & ~observed.all(axis=1))
        if len(partial):
            prior = np.zeros((len(partial), self.n_latents))
            cov = np.diag(self.variance_)
            own = values[partial], observed[partial]
            latents[partial], _ = self.update(prior, cov, *own, wants_root=False)
        return latents, available

    def update(self, mean, cov, values, observed, *, wants_root=True):
        """Posterior of latents given some cells of the block itself.

        Parameters
        ----------
        mean : float array of shape (n, k)
            What the other modalities say of the latents.
        cov : float array of shape (k, k)
        values : float array of shape (n, d)
        observed : bool array of shape (n, d)
        wants_root : bool
            Roots take much memory: k times that of the mean.

        Returns
        -------
        mean : float64 array of shape (n, k)
        root : float64 array of shape (n, k, k), or None
            Times its transpose it is the covariance.
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
        Fits a transformer: gets it, rows of shape (n, d) in the columns' own units and
        a seed, and returns it fitted. None where it is fitted.
    name : str
        The transformer and its modality, for errors.
    mean, scale : arrays of shape (d,)
        Of the columns, which come in standardised.

    Attributes
    ----------
    As of `LinearEncoder`. ``noise_`` is the error of the round trip. Cells of a block
    that is there in part do not inform its others.
    """

    def __init__(self, transformer, learn, name, mean, scale):
        self.transformer, self.learn, self.name = transformer, learn, name
        self.mean, self.scale = mean, scale

    def fit(self, values, observed, generator):
        """Fit to the rows that are complete, and measure the round trip in them.

        Raises
        ------
        ValueError
            Naming the modality, if no row is complete, the transformer fails, or what
            it returns does not have the shape of the rows or is not finite.
        """
        rows = values[observed.all(axis=1)].astype(np.float64)
        if not len(rows):
            raise ValueError(
                f"{self.name} has no row in which all columns of the modality are "
                "observed, to be fitted to and measured on: leave this modality out "
                "of encoders, or give it fewer columns."
            )
        self.center_, self.unit_ = 0.0, 1.0
        try:
            if self.learn is None:
                transformer = copy.deepcopy(self.transformer)
            else:
                own, seed = rows * self.scale + self.mean, generator.integers(2**31)
                transformer = self.learn(self.transformer, own, int(seed))
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
        self.noise_ = np.maximum(((rows - back) ** 2).mean(axis=0), MIN_NOISE)
        self.center_, spread = latents.mean(axis=0), latents.std(axis=0)
        # In one unit, so that the latents vary as much as the columns do.
        total = np.sqrt(rows.var(axis=0).sum() / max(1e-12, (spread**2).sum()))
        self.unit_ = 1 / max(total, 1e-12)
        self.variance_ = np.maximum((spread / self.unit_) ** 2, 1e-8)
        self.column_variance_ = back.var(axis=0)
        return self

    def _latents(self, values):
        raw = _dense(self.transformer.transform(values * self.scale + self.mean))
        if raw.ndim != 2:
            raise ValueError(f"latents must have two dimensions, got shape {raw.shape}")
        return (raw - self.center_) / self.unit_

    def _columns(self, latents):
        raw = latents * self.unit_ + self.center_
        back = _dense(self.transformer.inverse_transform(raw))
        if back.shape[1:] != self.mean.shape:  # `fit` says what is wrong
            return back
        return (back - self.mean) / self.scale

    @property
    def n_latents(self):
        """Number of latents."""
        return len(self.variance_)

    def encode(self, values, observed):
        """As `LinearEncoder.encode`; missing cells count as the mean."""
        available = observed.mean(axis=1) >= MIN_SHARE
        latents = np.zeros((len(values), self.n_latents))
        rows = np.flatnonzero(available)
        if len(rows):
            latents[rows] = self._latents(
                np.where(observed[rows], values[rows], 0.0).astype(np.float64)
            )
        return latents, available

    def update(self, mean, cov, values, observed):
        """Keep what the other modalities say: see `LinearEncoder.update`."""
        del values, observed
        root = np.linalg.cholesky(cov)
        return mean, np.broadcast_to(root, (len(mean), *root.shape)).copy()

    def decode(self, latents):
        """Columns of latents: (n, k) -> (n, d)."""
        return self._columns(latents)

    def variance_of(self, variance):
        """Variance of the columns, as far as that of the latents goes: (n, d)."""
        share = variance.sum(axis=1) / self.variance_.sum()
        return share[:, None] * self.column_variance_ + self.noise_


def _dense(array):
    """Array of float64 of what a transformer returns, a sparse matrix perhaps."""
    array = array.toarray() if hasattr(array, "toarray") else array
    return np.asarray(array, dtype=np.float64)
