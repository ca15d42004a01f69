"""The anchor: a Gaussian over all columns, conditioned on whatever is observed.

Two models share one interface, ``condition(values, observed) -> mean, sd``:
`GaussianAnchor` holds a full covariance and is exact; `FactorAnchor` holds a low-rank
factor model and costs O(n_columns) a row. `fit_anchor` chooses between them by width
and chooses the ridge from the data. All values are standardised.

The expectation-maximisation for incomplete Gaussian data is Dempster, Laird and Rubin
(1977) with an inverse-Wishart prior (Schafer, 1997, section 5.3); the one for factor
models is Rubin and Thayer (1982), with sums over observed cells only.
"""

from __future__ import annotations

import math

import torch
from torch import nn

MAX_EXACT_COLUMNS = 96
MAX_FIT_ROWS = 20_000
MAX_FACTORS = 32
MIN_SD = 1e-4
# Pseudo-rows of the prior, relative to nothing: a prior worth `ridge` rows.
RIDGES = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
FACTOR_RIDGES = (1.0, 10.0, 100.0)
# Rows that choose the ridge: with more, every ridge of the grid gives the same.
MAX_TUNING_ROWS = 3000
# Elements of one batch of (n, d, d) matrices; keeps the working set within ~100 MB.
_BATCH_ELEMENTS = 4_000_000


def unique_patterns(observed):
    """Distinct rows of a mask and, for each row, the index of its pattern.

    Parameters
    ----------
    observed : bool tensor of shape (n_rows, n_columns)

    Returns
    -------
    patterns : bool tensor of shape (n_patterns, n_columns)
    inverse : int tensor of shape (n_rows,)
    """
    return torch.unique(observed, dim=0, return_inverse=True)


class GaussianAnchor(nn.Module):
    """Multivariate normal with a full covariance, in float64.

    Shape of ``mean``: (d,), of ``cov``: (d, d).
    """

    def __init__(self, mean, cov):
        super().__init__()
        self.register_buffer("mean", mean.double())
        self.register_buffer("cov", cov.double())

    def _factorise(self, observed):
        """Cholesky factor of the observed block, and the solved cross-covariance.

        Missing rows and columns are replaced by those of the identity, so that every
        pattern has the same size and one batched call serves them all.
        """
        m = observed.double()  # (P, d)
        a = m[:, :, None] * self.cov * m[:, None, :]  # (P, d, d)
        a.diagonal(dim1=1, dim2=2).add_(1.0 - m)
        chol = torch.linalg.cholesky(a)
        cross = m[:, :, None] * self.cov  # (P, d, d)
        return chol, torch.linalg.solve_triangular(chol, cross, upper=False)

    def condition(self, values, observed):
        """Mean and standard deviation of every cell given the observed ones.

        Parameters
        ----------
        values : tensor of shape (n, d); what stands at missing cells is ignored
        observed : bool tensor of shape (n, d)

        Returns
        -------
        mean, sd : tensors of shape (n, d), in the dtype of ``values``
            Observed cells have their own value and 0.
        """
        if values.shape[0] == 0:
            return values.clone(), values.clone()
        patterns, inverse = unique_patterns(observed)
        x = torch.where(observed, values.double() - self.mean, 0.0)
        step = max(1, _BATCH_ELEMENTS // self.cov.numel())
        if patterns.shape[0] <= step:
            mean, sd = self._condition(x, patterns, inverse)
        else:
            mean, sd = torch.empty_like(x), torch.empty_like(x)
            order = torch.argsort(inverse)
            bounds = torch.searchsorted(
                inverse[order],
                torch.arange(0, patterns.shape[0] + step, step, device=x.device),
            ).tolist()
            for k, (lo, hi) in enumerate(zip(bounds, bounds[1:], strict=False)):
                rows = order[lo:hi]
                mean[rows], sd[rows] = self._condition(
                    x[rows], patterns[k * step : (k + 1) * step], inverse[rows] - k * step
                )
        mean = torch.where(observed, values, mean.to(values.dtype))
        return mean, torch.where(observed, 0.0, sd.to(values.dtype))

    def _condition(self, x, patterns, inverse):
        chol, solved = self._factorise(patterns)
        variance = self.cov.diagonal() - solved.square().sum(1)  # (P, d)
        if patterns.shape[0] == x.shape[0]:  # every row its own pattern
            half = torch.linalg.solve_triangular(
                chol[inverse], x[:, :, None], upper=False
            )
            mean = (solved[inverse] * half).sum(1)
        else:
            gain = torch.linalg.solve_triangular(
                chol.transpose(1, 2), solved, upper=True
            )  # (P, d, d): regression of all columns on the observed ones
            mean = torch.empty_like(x)
            for p in range(patterns.shape[0]):
                rows = inverse == p
                mean[rows] = x[rows] @ gain[p]
        return mean + self.mean, variance.clamp_min(MIN_SD**2).sqrt()[inverse]

    def expected_moments(self, x, observed):
        """Sum of E[x], of E[x x'] over rows: the E-step, about ``mean``.

        Shape in: (n, d) twice; out: (d,), (d, d).
        """
        patterns, inverse = unique_patterns(observed)
        first = torch.zeros_like(self.mean)
        second = torch.zeros_like(self.cov)
        centred = torch.where(observed, x - self.mean, 0.0)
        counts = torch.bincount(inverse, minlength=patterns.shape[0]).double()
        order = torch.argsort(inverse)
        ends = torch.cumsum(counts, 0).long()
        step = max(1, _BATCH_ELEMENTS // self.cov.numel())
        for lo in range(0, patterns.shape[0], step):
            chol, solved = self._factorise(patterns[lo : lo + step])
            begin = 0 if lo == 0 else int(ends[lo - 1])
            rows = order[begin : int(ends[min(lo + step, len(ends)) - 1])]
            local = inverse[rows] - lo
            if len(chol) == len(rows):
                half = torch.linalg.solve_triangular(
                    chol, centred[rows][:, :, None], upper=False
                )
                filled = (solved * half).sum(1)
            else:
                gain = torch.linalg.solve_triangular(
                    chol.transpose(1, 2), solved, upper=True
                )
                filled = _rows_by_pattern(centred[rows], gain, local)
            weight = counts[lo : lo + step]
            root = (weight.sqrt()[:, None, None] * solved).flatten(0, 1)  # (P * d, d)
            total = self.cov * weight.sum() - root.T @ root
            first += filled.sum(0)
            second += total + filled.T @ filled
        return first, second


def _rows_by_pattern(x, gain, pattern):
    """``x[i] @ gain[pattern[i]]`` for sorted ``pattern``; one product a pattern."""
    counts = torch.bincount(pattern, minlength=gain.shape[0]).tolist()
    return torch.cat(
        [part @ g for part, g in zip(x.split(counts), gain, strict=True) if len(part)]
    )


def fit_gaussian(x, observed, ridge, start=None, max_iter=100, tol=2e-4):
    """Posterior mode of a Gaussian by expectation-maximisation.

    Parameters
    ----------
    x : float64 tensor of shape (n, d)
    observed : bool tensor of shape (n, d)
    ridge : float
        Weight of the prior covariance, the identity, in rows.
    start : GaussianAnchor, optional
        Where to begin.

    Returns
    -------
    GaussianAnchor
    """
    n, d = x.shape
    eye = torch.eye(d, dtype=torch.float64, device=x.device)
    anchor = start or GaussianAnchor(x.new_zeros(d), eye)
    for _ in range(max_iter):
        first, second = anchor.expected_moments(x, observed)
        # The mean has a prior of its own, worth a hundredth of a row at zero: it only
        # decides for columns that are never observed.
        shift = first / (n + 0.01)
        scatter = second - n * torch.outer(shift, shift)
        cov = (scatter + ridge * eye) / (n + ridge)
        change = (cov - anchor.cov).abs().max()
        anchor = GaussianAnchor(anchor.mean + shift, (cov + cov.T) / 2)
        if change < tol:
            break
    return anchor


class FactorAnchor(nn.Module):
    """Factor model: x = mean + loadings z + noise, with z standard normal.

    Shape of ``mean`` and ``noise`` (variances): (d,), of ``loadings``: (d, k).
    """

    def __init__(self, mean, loadings, noise):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("loadings", loadings)
        self.register_buffer("noise", noise)

    def posterior(self, x, observed):
        """Mean and covariance of the factors: (n, k), (n, k, k), by Woodbury."""
        k = self.loadings.shape[1]
        scaled = self.loadings / self.noise[:, None]  # (d, k)
        outer = (scaled[:, :, None] * self.loadings[:, None, :]).flatten(1)  # (d, k*k)
        m = observed.to(x.dtype)
        precision = (m @ outer).view(-1, k, k)
        precision.diagonal(dim1=1, dim2=2).add_(1.0)
        cov = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        weighted = torch.where(observed, x - self.mean, 0.0) @ scaled  # (n, k)
        return torch.einsum("nij,nj->ni", cov, weighted), cov

    def condition(self, values, observed):
        """Mean and standard deviation as `GaussianAnchor.condition` returns them."""
        mean, sd = torch.empty_like(values), torch.empty_like(values)
        k = self.loadings.shape[1]
        step = max(1, _BATCH_ELEMENTS // max(k * k, values.shape[1]))
        square = (self.loadings[:, :, None] * self.loadings[:, None, :]).flatten(1)
        for lo in range(0, values.shape[0], step):
            part = slice(lo, lo + step)
            z, cov = self.posterior(values[part].to(self.mean.dtype), observed[part])
            mean[part] = (self.mean + z @ self.loadings.T).to(values.dtype)
            variance = self.noise + cov.flatten(1) @ square.T
            sd[part] = variance.clamp_min(MIN_SD**2).sqrt().to(values.dtype)
        return torch.where(observed, values, mean), torch.where(observed, 0.0, sd)


def fit_factors(x, observed, ridge, n_factors, max_iter=30, tol=1e-3):
    """Posterior mode of a factor model by expectation-maximisation.

    Parameters
    ----------
    x : float tensor of shape (n, d)
    observed : bool tensor of shape (n, d)
    ridge : float
        Precision of the loadings' prior.
    n_factors : int

    Returns
    -------
    FactorAnchor
    """
    n, d = x.shape
    m = observed.to(x.dtype)
    filled = torch.where(observed, x, 0.0)
    # Missing cells shrink the leading singular values: give them back by the rate.
    u, sv, v = torch.svd_lowrank(filled, q=n_factors, niter=4)
    rate = m.mean().clamp_min(1e-3)
    loadings = v * (sv / math.sqrt(n) / rate.sqrt())
    noise = (1.0 - loadings.square().sum(1)).clamp(0.05, 1.0)
    anchor = FactorAnchor(x.new_zeros(d), loadings, noise)
    eye = ridge * torch.eye(n_factors + 1, dtype=x.dtype, device=x.device)
    eye[-1, -1] = 0.01
    k1 = n_factors + 1
    step = max(1, _BATCH_ELEMENTS // max(k1 * k1, d))
    counts = m.sum(0)
    for _ in range(max_iter):
        gram = x.new_zeros(d, k1 * k1)
        cross = x.new_zeros(d, k1)
        for lo in range(0, n, step):
            part = slice(lo, lo + step)
            z, cov = anchor.posterior(x[part], observed[part])
            z1 = torch.cat([z, z.new_ones(len(z), 1)], 1)  # the mean is a loading of 1
            moment = z1[:, :, None] * z1[:, None, :]
            moment[:, :-1, :-1] += cov
            gram += m[part].T @ moment.flatten(1)
            cross += filled[part].T @ z1
        system = gram.view(d, k1, k1) + eye
        solution = torch.linalg.solve(system, cross)  # (d, k + 1)
        residual = (
            filled.square().sum(0)
            - 2 * (solution * cross).sum(1)
            + torch.einsum("di,dij,dj->d", solution, gram.view(d, k1, k1), solution)
        )
        # One pseudo-row of unit variance and a floor: noise never collapses.
        noise = ((residual + 1.0) / (counts + 1.0)).clamp(1e-3, 2.0)
        change = (solution[:, :-1] - anchor.loadings).abs().max()
        anchor = FactorAnchor(solution[:, -1], solution[:, :-1].contiguous(), noise)
        if change < tol:
            break
    return anchor


def fit_anchor(x, observed, generator, ridge=None):
    """Fit the anchor that suits the table's width, its ridge chosen from the data.

    Parameters
    ----------
    x : tensor of shape (n, d), standardised
    observed : bool tensor of shape (n, d)
    generator : torch.Generator on the CPU
        Chooses rows where the table is larger than needed, and the cells that
        choose the ridge.
    ridge : float, optional
        Take this ridge instead of choosing one.

    Returns
    -------
    anchor : GaussianAnchor or FactorAnchor
    ridge : float
    """
    if x.shape[0] > MAX_FIT_ROWS:
        rows = torch.randperm(x.shape[0], generator=generator)[:MAX_FIT_ROWS]
        x, observed = x[rows.to(x.device)], observed[rows.to(x.device)]
    exact = x.shape[1] <= MAX_EXACT_COLUMNS
    x = x.double() if exact else x.float()
    if exact:
        fit, ridges = fit_gaussian, RIDGES
    else:
        n_factors = max(1, min(MAX_FACTORS, x.shape[0] // 4))

        def fit(x, observed, ridge, start=None):
            return fit_factors(x, observed, ridge, n_factors)

        ridges = FACTOR_RIDGES
    if ridge is None:
        ridge = _choose_ridge(x, observed, fit, ridges, generator)
    return fit(x, observed, ridge), ridge


def _choose_ridge(x, observed, fit, ridges, generator, n_folds=3):
    """The ridge with the lowest squared error on cells hidden in held-out rows."""
    n = x.shape[0]
    order = torch.randperm(n, generator=generator)[:MAX_TUNING_ROWS].to(x.device)
    n_folds = min(n_folds, len(order))
    if n_folds < 2:
        return ridges[-1]
    folds = torch.arange(len(order), device=x.device) % n_folds
    if n > MAX_TUNING_ROWS:
        n_folds = 1  # one split of this size decides as well as three
    errors = torch.zeros(len(ridges), dtype=torch.float64)
    for fold in range(n_folds):
        held, kept = order[folds == fold], order[folds != fold]
        hide = torch.rand(len(held), x.shape[1], generator=generator) < 0.3
        hide = hide.to(x.device) & observed[held]
        anchor = None
        for i in range(len(ridges) - 1, -1, -1):  # from smooth to rough, warm
            anchor = fit(x[kept], observed[kept], ridges[i], start=anchor)
            mean, _ = anchor.condition(x[held], observed[held] & ~hide)
            errors[i] += (mean - x[held])[hide].square().sum().cpu()
    return ridges[int(errors.argmin())]
