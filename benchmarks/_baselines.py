"""Peers that complete blocks of columns; scikit-learn's own come as they are."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from torch import nn
from torch.nn import functional as F

RIDGES = np.logspace(-1, 5, 25)  # by leave-one-out error; mosi's lie near the upper end
KERNEL_RIDGES = np.logspace(-4, 3, 22)


class PerPattern(TransformerMixin, BaseEstimator):
    """One regression a missing pattern, of what is missing on what is observed.

    A pattern's models are fitted when it is first met, so that their time counts as
    `transform`'s. Regressors of incomplete training rows are filled by column means,
    and rows that lack the target are left out.

    Parameters
    ----------
    regressor : estimator
        A regressor of several targets.
    """

    def __init__(self, regressor):
        self.regressor = regressor

    def fit(self, X, y=None):
        """Remember the training rows."""
        self.rows_ = X
        self.mean_ = np.nan_to_num(np.nanmean(X, axis=0))
        self.filled_ = np.where(np.isnan(X), self.mean_, X)
        self.models_ = {}
        return self

    def _models(self, missing):
        key = missing.tobytes()
        if key not in self.models_:
            targets = np.flatnonzero(missing)
            known = ~np.isnan(self.rows_[:, targets])
            # Columns known in the same rows, as those of a modality are, share a model.
            patterns, which = np.unique(known, axis=1, return_inverse=True)
            self.models_[key] = [
                (targets[which.ravel() == k], self._regression(rows, missing, part))
                for k, rows in enumerate(patterns.T)
                for part in [targets[which.ravel() == k]]
                if rows.sum() > 1
            ]
        return self.models_[key]

    def _regression(self, rows, missing, targets):
        inputs = self.filled_[np.ix_(rows, ~missing)]
        return clone(self.regressor).fit(inputs, self.rows_[np.ix_(rows, targets)])

    def transform(self, X):
        """Predict the missing cells from the observed ones of their row."""
        completed = np.where(np.isnan(X), self.mean_, X)
        patterns, which = np.unique(np.isnan(X), axis=0, return_inverse=True)
        for k, missing in enumerate(patterns):
            rows = np.flatnonzero(which.ravel() == k)
            if missing.all():
                continue
            for targets, model in self._models(missing):
                predicted = model.predict(X[np.ix_(rows, ~missing)])
                completed[np.ix_(rows, targets)] = predicted.reshape(len(rows), -1)
        return completed


class KernelRidge(RegressorMixin, BaseEstimator):
    """Kernel ridge regression, its ridge by leave-one-out error.

    The kernel is exp(-(distance / median distance)^2 / 2).

    Parameters
    ----------
    ridges : array of float
    """

    def __init__(self, ridges=tuple(KERNEL_RIDGES)):
        self.ridges = ridges

    def fit(self, X, y):
        """One eigendecomposition serves all ridges."""
        self.rows_, self.mean_ = X, y.mean(axis=0)
        distance = cdist(X, X)
        self.width_ = np.median(distance[np.triu_indices(len(X), 1)]) or 1.0
        values, vectors = eigh(np.exp(-((distance / self.width_) ** 2) / 2))
        rotated = vectors.T @ (y - self.mean_)
        errors = []
        for ridge in self.ridges:
            inverse = 1 / (values.clip(0) + ridge)
            # Leave-one-out residual: [K^-1 y]_i / [K^-1]_ii with the ridge in K.
            residual = (vectors @ (inverse[:, None] * rotated)) / (
                (vectors**2) @ inverse
            )[:, None]
            errors.append(np.mean(residual**2))
        self.ridge_ = self.ridges[int(np.argmin(errors))]
        inverse = 1 / (values.clip(0) + self.ridge_)
        self.weights_ = vectors @ (inverse[:, None] * rotated)
        return self

    def predict(self, X):
        """Weigh the training rows by the kernel."""
        kernel = np.exp(-((cdist(X, self.rows_) / self.width_) ** 2) / 2)
        return self.mean_ + kernel @ self.weights_


def _batches(n, size, n_epochs, generator):
    """Yield indices of batches, each epoch in a new order."""
    for _ in range(n_epochs):
        yield from torch.randperm(n, generator=generator).split(size)


def _train(network, parameters, batches, loss):
    """Adam on a cosine schedule; `loss` takes the indices of a batch."""
    optimizer = torch.optim.AdamW(network.parameters(), **parameters)
    batches = list(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _mlp(d_in, width, d_out, dropout=0.0):
    layers = [nn.Linear(d_in, width), nn.ReLU(), nn.Dropout(dropout)]
    layers += [nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, d_out))


class MaskedAutoencoder(TransformerMixin, BaseEstimator):
    """An MLP that predicts dropped views from the others, and which are there.

    Parameters
    ----------
    blocks : dict of arrays
        Columns of each view.
    n_epochs, width, dropout, random_state
        Of the training.
    """

    def __init__(self, blocks, n_epochs=200, width=512, dropout=0.2, random_state=0):
        self.blocks = blocks
        self.n_epochs = n_epochs
        self.width = width
        self.dropout = dropout
        self.random_state = random_state

    def fit(self, X, y=None):
        """Train on random drops of views, a uniform number of them a row."""
        d = X.shape[1]
        generator = torch.Generator().manual_seed(self.random_state)
        rows = torch.tensor(np.nan_to_num(X), dtype=torch.float32)
        known = torch.tensor(~np.isnan(X))
        view = torch.zeros(d, dtype=torch.long)
        for k, columns in enumerate(self.blocks.values()):
            view[torch.as_tensor(columns)] = k

        def loss(batch):
            x, seen = rows[batch], known[batch]
            order = torch.rand(len(x), len(self.blocks), generator=generator).argsort(1)
            n_kept = torch.randint(
                1, len(self.blocks), (len(x), 1), generator=generator
            )
            kept = seen & (order < n_kept)[:, view]
            target = seen & ~kept
            predicted = self.network_(torch.cat([x * kept, kept.float()], dim=1))
            return ((predicted - x)[target] ** 2).sum() / target.sum().clamp(min=1)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self.network_ = _mlp(2 * d, self.width, d, self.dropout)
            batches = _batches(len(rows), 128, self.n_epochs, generator)
            _train(self.network_, {"lr": 1e-3, "weight_decay": 1e-2}, batches, loss)
        return self

    @torch.no_grad()
    def transform(self, X):
        """One call completes any pattern."""
        missing = np.isnan(X)
        x = torch.tensor(np.nan_to_num(X), dtype=torch.float32)
        predicted = self.network_(torch.cat([x, torch.tensor(~missing).float()], dim=1))
        return np.where(missing, predicted.double().numpy(), X)


class PublishedDiffusion(TransformerMixin, BaseEstimator):
    """The default path of ADMC's published code (arXiv:2507.05624), re-created.

    An unconditional DDPM over all features together. Its attention is built there and
    never applied: the denoiser is an MLP of features and time. A row starts as noise,
    whatever is observed of it, and observed values are spliced in, with the noise of
    their level, for the last `n_spliced` of `n_steps` reverse steps only. One draw.

    Nothing here scales the features, as nothing does there; callers that pass
    standardised ones are kind to it.

    Parameters
    ----------
    n_epochs, width, n_steps, n_spliced, random_state
        Of the training, and of the reverse diffusion.
    """

    def __init__(
        self, n_epochs=600, width=512, n_steps=1000, n_spliced=50, random_state=0
    ):
        self.n_epochs = n_epochs
        self.width = width
        self.n_steps = n_steps
        self.n_spliced = n_spliced
        self.random_state = random_state

    def _schedule(self):
        """Linear betas (Ho et al. 2020, arXiv:2006.11239), and products of alphas."""
        beta = torch.linspace(0.1, 20, self.n_steps) / self.n_steps
        return beta, torch.cumprod(1 - beta, dim=0)

    def _noise(self, x, t):
        """Predicted noise of rows at step t: (B, d), (B,) -> (B, d)."""
        angle = t[:, None] * torch.exp(-math.log(1e4) * torch.arange(32) / 32)
        return self.network_(torch.cat([x, angle.sin(), angle.cos()], dim=1))

    def fit(self, X, y=None):
        """Train the denoiser; missing training cells are filled by column means."""
        mean = np.nan_to_num(np.nanmean(X, axis=0))
        rows = torch.tensor(np.where(np.isnan(X), mean, X), dtype=torch.float32)
        self.range_ = rows.amin(dim=0), rows.amax(dim=0)
        generator = torch.Generator().manual_seed(self.random_state)
        _, alpha = self._schedule()

        def loss(batch):
            t = torch.randint(self.n_steps, (len(batch),), generator=generator)
            noise = torch.randn(len(batch), X.shape[1], generator=generator)
            level = alpha[t][:, None]
            noisy = level.sqrt() * rows[batch] + (1 - level).sqrt() * noise
            return F.mse_loss(self._noise(noisy, t), noise)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self.network_ = _mlp(X.shape[1] + 64, self.width, X.shape[1])
            batches = _batches(len(rows), 128, self.n_epochs, generator)
            _train(self.network_, {"lr": 1e-3, "weight_decay": 0.0}, batches, loss)
        return self

    @torch.no_grad()
    def transform(self, X):
        """Draw once, by `n_steps` network calls."""
        missing = np.isnan(X)
        observed = torch.tensor(np.nan_to_num(X), dtype=torch.float32)
        known = torch.tensor(~missing)
        generator = torch.Generator().manual_seed(self.random_state)

        def noise():
            return torch.randn(X.shape, generator=generator)

        beta, alpha = self._schedule()
        before = torch.cat([torch.ones(1), alpha[:-1]])
        x = noise()
        for t in range(self.n_steps - 1, -1, -1):
            if t < self.n_spliced:
                level = alpha[t].sqrt() * observed + (1 - alpha[t]).sqrt() * noise()
                x = torch.where(known, level, x)
            clean = x - (1 - alpha[t]).sqrt() * self._noise(x, torch.full((len(x),), t))
            # Without bounds a denoiser trained for a minute leaves the data's range.
            clean = torch.clamp(clean / alpha[t].sqrt(), *self.range_)
            # The posterior of the step before (Ho et al., equation 7).
            x = before[t].sqrt() * beta[t] * clean + (1 - beta[t]).sqrt() * (
                (1 - before[t]) * x
            )
            x = x / (1 - alpha[t])
            if t:
                spread = beta[t] * (1 - before[t]) / (1 - alpha[t])
                x = x + spread.sqrt() * noise()
        return np.where(missing, x.double().numpy(), X)


class Counterparts(TransformerMixin, BaseEstimator):
    """Features of every modality and, appended, what the others make of them.

    What `CrossModalFeatures` does for `ADMCImputer`, for any imputer.

    Parameters
    ----------
    imputer : estimator
    blocks : dict of arrays
        Columns of each modality.
    """

    def __init__(self, imputer, blocks):
        self.imputer = imputer
        self.blocks = blocks

    def fit(self, X, y=None):
        """Fit the imputer."""
        self.imputer_ = clone(self.imputer).fit(X)
        return self

    def transform(self, X):
        """Append as many columns as there are."""
        generated = np.empty(X.shape)
        for columns in self.blocks.values():
            hidden = X.copy()
            hidden[:, columns] = np.nan
            generated[:, columns] = self.imputer_.transform(hidden)[:, columns]
        return np.hstack([X, generated])


REGRESSORS = {
    "trees": lambda seed: ExtraTreesRegressor(
        100, min_samples_leaf=2, n_jobs=-1, random_state=seed
    ),
    "mlp": lambda seed: MLPRegressor(
        hidden_layer_sizes=(256, 256),
        early_stopping=True,
        max_iter=60,
        random_state=seed,
    ),
}

BASELINES = {
    "mean": lambda seed, blocks: SimpleImputer(keep_empty_features=True),
    "knn": lambda seed, blocks: KNNImputer(
        n_neighbors=10, weights="distance", keep_empty_features=True
    ),
    "ridge": lambda seed, blocks: PerPattern(RidgeCV(alphas=RIDGES)),
    "kernel": lambda seed, blocks: PerPattern(KernelRidge()),
    "trees": lambda seed, blocks: PerPattern(REGRESSORS["trees"](seed)),
    "mlp": lambda seed, blocks: PerPattern(REGRESSORS["mlp"](seed)),
    "autoencoder": lambda seed, blocks: MaskedAutoencoder(blocks, random_state=seed),
    "published": lambda seed, blocks: PublishedDiffusion(random_state=seed),
}
