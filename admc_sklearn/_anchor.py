"""The anchor: a Gaussian over all columns, conditioned on whatever is observed.

Two models share one interface, ``condition(values, observed) -> mean, sd``:
`GaussianAnchor` holds a full covariance and is exact; `FactorAnchor` holds a low-rank
factor model and costs O(n_columns) a row. `fitter` chooses between them by width. All
values are standardised.

The expectation-maximisation for incomplete Gaussian data is Dempster, Laird and Rubin
(1977) with an inverse-Wishart prior (Schafer, 1997, section 5.3); the one for factor
models is Rubin and Thayer (1982), with sums over observed cells only.
"""

from __future__ import annotations

import math

import torch
from torch import nn

MAX_EXACT_COLUMNS = 64
MAX_FIT_ROWS = 20_000
MAX_FACTORS = 32
MIN_SD = 1e-4
# The prior is worth so many rows.
RIDGES = (1e-3, 1e-2, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
FACTOR_RIDGES = (1.0, 10.0, 100.0)
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

    def condition(self, values, observed, *, shared=True):
        """Mean and standard deviation of every cell given the observed ones.

        Parameters
        ----------
        values : tensor of shape (n, d); what stands at missing cells is ignored
        observed : bool tensor of shape (n, d)
        shared : bool
            Look for rows with the same pattern, to factorise once for all of them.
            Not worth the search where patterns are drawn at random.

        Returns
        -------
        mean, sd : tensors of shape (n, d), in the dtype of ``values``
            Observed cells have their own value and 0.
        """
        x = torch.where(observed, values.double() - self.mean, 0.0)
        mean, sd = torch.empty_like(x), torch.empty_like(x)
        if shared:
            patterns, inverse = unique_patterns(observed)
            order = torch.argsort(inverse)
            shared = 2 * len(patterns) <= len(x)
        if shared:
            for rows, part, local in self._pattern_batches(patterns, inverse, order):
                chol, solved = self._factorise(part)
                mean[rows] = _rows_by_pattern(x[rows], _gain(chol, solved), local)
                sd[rows] = self._sd(solved)[local]
        else:
            step = max(1, _BATCH_ELEMENTS // self.cov.numel())
            for lo in range(0, len(x), step):
                rows = slice(lo, lo + step)
                chol, solved = self._factorise(observed[rows])
                mean[rows] = _fill(x[rows], chol, solved)
                sd[rows] = self._sd(solved)
        mean = torch.where(observed, values, (mean + self.mean).to(values.dtype))
        return mean, torch.where(observed, 0.0, sd.to(values.dtype))

    def _sd(self, solved):
        """Conditional standard deviations, (P, d)."""
        variance = self.cov.diagonal() - solved.square().sum(1)
        return variance.clamp_min(MIN_SD**2).sqrt()

    def _pattern_batches(self, patterns, inverse, order):
        """Rows, their patterns and the index among those, in bounded batches."""
        ends = torch.cumsum(torch.bincount(inverse, minlength=len(patterns)), 0)
        step = max(1, _BATCH_ELEMENTS // self.cov.numel())
        begin = 0
        for lo in range(0, len(patterns), step):
            end = int(ends[min(lo + step, len(ends)) - 1])
            rows = order[begin:end]
            yield rows, patterns[lo : lo + step], inverse[rows] - lo
            begin = end

    def expected_moments(self, x, patterns, inverse, order):
        """Sum over rows of E[x] and of E[x x'], about ``mean``: the E-step.

        Parameters
        ----------
        x : float64 tensor of shape (n, d)
        patterns, inverse : as `unique_patterns` returns them
        order : int tensor of shape (n,), sorting ``inverse``

        Returns
        -------
        first, second : tensors of shape (d,), (d, d)
        """
        first = torch.zeros_like(self.mean)
        second = torch.zeros_like(self.cov)
        for rows, part, local in self._pattern_batches(patterns, inverse, order):
            chol, solved = self._factorise(part)
            centred = torch.where(part[local], x[rows] - self.mean, 0.0)
            if 2 * len(part) > len(rows):
                filled = _fill(centred, chol[local], solved[local])
            else:
                filled = _rows_by_pattern(centred, _gain(chol, solved), local)
            weight = torch.bincount(local, minlength=len(part)).double()
            root = (weight.sqrt()[:, None, None] * solved).flatten(0, 1)  # (P * d, d)
            first += filled.sum(0)
            second += self.cov * len(rows) - root.T @ root + filled.T @ filled
        return first, second


def _gain(chol, solved):
    """Regression of all columns on the observed ones, (P, d, d)."""
    return torch.linalg.solve_triangular(chol.transpose(1, 2), solved, upper=True)


def _fill(x, chol, solved):
    """Conditional means where every row has a pattern of its own, (n, d)."""
    half = torch.linalg.solve_triangular(chol, x[:, :, None], upper=False)
    return torch.bmm(half.transpose(1, 2), solved).squeeze(1)


def _rows_by_pattern(x, gain, pattern):
    """``x[i] @ gain[pattern[i]]`` for sorted ``pattern``; one product a pattern."""
    counts = torch.bincount(pattern, minlength=gain.shape[0]).tolist()
    return torch.cat(
        [part @ g for part, g in zip(x.split(counts), gain, strict=True) if len(part)]
    )


def fit_gaussian(x, observed, ridge, start=None, max_iter=40, tol=1e-3):
    """Posterior mode of a Gaussian by expectation-maximisation.

    Parameters
    ----------
    x : tensor of shape (n, d)
    observed : bool tensor of shape (n, d)
    ridge : float
        Weight of the prior covariance, the identity, in rows.
    start : GaussianAnchor, optional
        Where to begin.

    Returns
    -------
    GaussianAnchor
    """
    x = x.double()
    n, d = x.shape
    eye = torch.eye(d, dtype=torch.float64, device=x.device)
    anchor = start or GaussianAnchor(x.new_zeros(d), eye)
    patterns, inverse = unique_patterns(observed)
    order = torch.argsort(inverse)
    for _ in range(max_iter):
        first, second = anchor.expected_moments(x, patterns, inverse, order)
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

    def condition(self, values, observed, *, shared=True):
        """Mean and standard deviation, as `GaussianAnchor.condition` returns them.

        ``shared`` is ignored: a row's k x k factorisation costs less than the search.
        """
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


def fitter(n_rows, n_columns):
    """The fit that suits a table's shape, and its grid of ridges.

    Returns
    -------
    fit : callable
        ``fit(x, observed, ridge, start=None, max_iter=...)`` returns an anchor.
    ridges : tuple of float
    """
    if n_columns <= MAX_EXACT_COLUMNS:
        return fit_gaussian, RIDGES
    n_factors = max(1, min(MAX_FACTORS, n_rows // 4))

    def fit(x, observed, ridge, start=None, max_iter=30):
        del start  # begins at the principal components
        return fit_factors(x, observed, ridge, n_factors, max_iter)

    return fit, FACTOR_RIDGES


def fit_anchor(x, observed, ridge, generator, start=None):
    """Fit the anchor that suits the table's shape.

    Parameters
    ----------
    x : tensor of shape (n, d), close to standardised
    observed : bool tensor of shape (n, d)
    ridge : float
    generator : torch.Generator on the CPU
        Chooses rows where the table has more than an anchor needs.
    start : GaussianAnchor, optional
        Where to begin.

    Returns
    -------
    GaussianAnchor or FactorAnchor
    """
    if x.shape[0] > MAX_FIT_ROWS:
        rows = torch.randperm(x.shape[0], generator=generator)[:MAX_FIT_ROWS]
        x, observed = x[rows.to(x.device)], observed[rows.to(x.device)]
    fit, _ = fitter(*x.shape)
    return fit(x, observed, ridge, start)
