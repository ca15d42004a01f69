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

    Works with the precision matrix: given the observed cells, the missing ones have
    the inverse of its missing block for a covariance, so that only a block as large as
    the number of missing cells is factorised.

    Shape of ``mean``: (d,), of ``cov`` and ``precision``: (d, d).
    """

    def __init__(self, mean, cov):
        super().__init__()
        cov = cov.double()
        self.register_buffer("mean", mean.double())
        self.register_buffer("cov", cov)
        precision = torch.cholesky_inverse(torch.linalg.cholesky(cov))
        self.register_buffer("precision", precision)

    def _missing_blocks(self, patterns):
        """Conditional covariance of every pattern's missing cells.

        Padded to the largest number U of missing cells: returns their columns and
        whether they are no padding, (P, U) twice, and the covariances (P, U, U).
        """
        size = max(1, int((~patterns).sum(1).max()))
        columns = patterns.to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
        filled = ~patterns.gather(1, columns)
        block = self.precision[columns[:, :, None], columns[:, None, :]]
        both = filled[:, :, None] & filled[:, None, :]
        eye = torch.eye(size, dtype=block.dtype, device=block.device)
        chol = torch.linalg.cholesky(torch.where(both, block, eye))
        return columns, filled, torch.cholesky_inverse(chol)

    def _batches(self, observed, shared):
        """Patterns, rows that have them and the rows' pattern, in bounded batches."""
        d = observed.shape[1]
        step = max(1, _BATCH_ELEMENTS // d**2)
        if not shared:
            for lo in range(0, len(observed), step):
                part = observed[lo : lo + step]
                rows = torch.arange(lo, lo + len(part), device=part.device)
                yield part, rows, rows - lo
            return
        patterns, inverse = unique_patterns(observed)
        order = torch.argsort(inverse)
        ends = torch.cumsum(torch.bincount(inverse, minlength=len(patterns)), 0)
        begin = 0
        for lo in range(0, len(patterns), step):
            end = int(ends[min(lo + step, len(ends)) - 1])
            rows = order[begin:end]
            yield patterns[lo : lo + step], rows, inverse[rows] - lo
            begin = end

    def _deviation(self, x, pattern, blocks):
        """Conditional means of missing cells, about the mean, (n, U).

        ``x`` (n, d) is about the mean too, and 0 at missing cells.
        """
        columns, filled, cov = blocks
        pull = (x @ self.precision).gather(1, columns[pattern]) * filled[pattern]
        step = max(1, _BATCH_ELEMENTS // cov[0].numel())
        parts = [
            torch.bmm(cov[p], r[:, :, None]).squeeze(2)
            for p, r in zip(pattern.split(step), pull.split(step), strict=True)
        ]
        return -torch.cat(parts)

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
        mean, variance = torch.zeros_like(x), torch.zeros_like(x)
        for patterns, rows, pattern in self._batches(observed, shared):
            blocks = self._missing_blocks(patterns)
            columns, _, cov = blocks
            deviation = self._deviation(x[rows], pattern, blocks)
            target = columns[pattern]
            mean[rows] = mean[rows].scatter(1, target, deviation)
            spread = cov.diagonal(dim1=1, dim2=2)[pattern]
            variance[rows] = variance[rows].scatter(1, target, spread)
        mean = torch.where(observed, values, (mean + self.mean).to(values.dtype))
        sd = variance.clamp_min(MIN_SD**2).sqrt().to(values.dtype)
        return mean, torch.where(observed, 0.0, sd)

    def expected_moments(self, x, batches):
        """Sum over rows of E[x] and of E[x x'], about ``mean``: the E-step.

        Parameters
        ----------
        x : float64 tensor of shape (n, d)
        batches : list, from `_batches`

        Returns
        -------
        first, second : tensors of shape (d,), (d, d)
        """
        d = len(self.mean)
        first = torch.zeros_like(self.mean)
        second = torch.zeros_like(self.cov).flatten()
        for patterns, rows, pattern in batches:
            blocks = self._missing_blocks(patterns)
            columns, filled, cov = blocks
            known = torch.where(patterns[pattern], x[rows] - self.mean, 0.0)
            deviation = self._deviation(known, pattern, blocks) * filled[pattern]
            complete = known.scatter_add(1, columns[pattern], deviation)
            first += complete.sum(0)
            second += (complete.T @ complete).flatten()
            weight = torch.bincount(pattern, minlength=len(patterns)).to(cov.dtype)
            weight = weight[:, None] * filled  # (P, U)
            cell = columns[:, :, None] * d + columns[:, None, :]  # (P, U, U)
            cov = cov * weight[:, :, None] * filled[:, None, :]
            second.index_add_(0, cell.flatten(), cov.flatten())
        return first, second.view(d, d)


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
    batches = list(anchor._batches(observed, shared=True))
    for _ in range(max_iter):
        first, second = anchor.expected_moments(x, batches)
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
    _, sv, v = torch.svd_lowrank(filled, q=n_factors, niter=4)
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
    """Choose the fit that suits a table's shape, and its grid of ridges.

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
