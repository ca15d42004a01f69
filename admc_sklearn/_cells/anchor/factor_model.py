"""A low-rank Gaussian for wide tables: O(n_columns) a row.

The expectation-maximisation for factor models is that of Rubin and Thayer (1982), with
sums over observed cells only.
"""

from __future__ import annotations

import functools
import math
import time

import torch
from torch import nn

from ..._shared.devices import in_threads, slices
from ..._shared.extrapolation import extrapolated
from ..._shared.linalg import cholesky, leading_vectors
from ..._shared.weights import rooted, some_weights, total_weight, weighted
from .gaussian import _BATCH_ELEMENTS, MIN_SD

MAX_FACTORS = 32
FACTOR_RIDGES = (1.0, 10.0, 100.0)
# Least and greatest variance of the noise, of standardised columns.
NOISE = 1e-3, 2.0


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
        cov = torch.cholesky_inverse(cholesky(precision))
        weighted = torch.where(observed, x - self.mean, 0.0) @ scaled  # (n, k)
        return torch.einsum("nij,nj->ni", cov, weighted), cov

    def marginal(self, blocks):
        """Mean (C, r) and covariance (C, r, r) of blocks of columns, (C, r)."""
        loadings, noise = self.loadings[blocks].double(), self.noise[blocks].double()
        return self.mean[blocks].double(), loadings @ loadings.mT + noise.diag_embed()

    def condition(self, values, observed, *, shared=True, blocks=None, n_first=None):
        """Mean and standard deviation, as `GaussianAnchor.condition` returns them.

        ``shared`` is ignored: a row's k x k factorisation costs less than the search;
        ``n_first`` too: it costs the same for all columns.
        """
        mean, sd = torch.empty_like(values), torch.empty_like(values)
        k = self.loadings.shape[1]
        square = (self.loadings[:, :, None] * self.loadings[:, None, :]).flatten(1)

        def condition_part(part):
            z, cov = self.posterior(values[part].to(self.mean.dtype), observed[part])
            mean[part] = (self.mean + z @ self.loadings.T).to(values.dtype)
            variance = self.noise + cov.flatten(1) @ square.T
            sd[part] = variance.clamp_min(MIN_SD**2).sqrt().to(values.dtype)
            if blocks is None:
                return None
            loadings = self.loadings[blocks]  # (C, r, k)
            found = torch.einsum("cik,nkl,cjl->ncij", loadings, cov, loadings)
            return found.double() + self.noise[blocks].double().diag_embed()

        cost = max(k * k, values.shape[1])
        parts = slices(len(values), cost, _BATCH_ELEMENTS, values.device)
        joint = in_threads(condition_part, parts, values.device)
        mean, sd = torch.where(observed, values, mean), torch.where(observed, 0.0, sd)
        return (mean, sd) if blocks is None else (mean, sd, torch.cat(joint))


def _moments(anchor, x, observed, weight, part):
    """Sum moments of a part's rows: (d, (k + 1)^2) and (d, k + 1), for the M-step."""
    z, cov = anchor.posterior(x[part], observed[part])
    z1 = torch.cat([z, z.new_ones(len(z), 1)], 1)  # the mean is a loading of 1
    moment = z1[:, :, None] * z1[:, None, :]
    moment[:, :-1, :-1] += cov
    own = some_weights(weight, part)
    seen = weighted(observed[part].to(x.dtype), own)
    filled = weighted(torch.where(observed[part], x[part], 0.0), own)
    return seen.T @ moment.flatten(1), filled.T @ z1


def _parameters(anchor):
    """Mean, loadings and logarithms of the noise: what iterations may extrapolate."""
    return anchor.mean, anchor.loadings, anchor.noise.log()


def fit_factors(
    x,
    observed,
    ridge,
    n_factors,
    *,
    max_iter=30,
    tol=1e-3,
    deadline=math.inf,
    weight=None,
):
    """Posterior mode of a factor model by accelerated expectation-maximisation.

    Parameters
    ----------
    x : float tensor of shape (n, d)
    observed : bool tensor of shape (n, d)
    ridge : float
        Precision of the loadings' prior.
    n_factors : int
    deadline : float
        Of `time.monotonic`; no iteration begins after it but the first.
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.

    Returns
    -------
    FactorAnchor
    """
    n, d = x.shape
    m = observed.to(x.dtype)
    filled = torch.where(observed, x, 0.0)
    # Missing cells shrink the leading singular values: give them back by the rate.
    # The same start for every ridge: they are compared.
    start = torch.Generator().manual_seed(0)
    sv, v = leading_vectors(rooted(filled, weight), n_factors, start)
    n_counted = total_weight(weight, x)
    rate = (weighted(m, weight).mean() * (n / n_counted)).clamp_min(1e-3)
    loadings = v * (sv / math.sqrt(n_counted) / rate.sqrt())
    noise = (1.0 - loadings.square().sum(1)).clamp(0.05, 1.0)
    anchor = FactorAnchor(x.new_zeros(d), loadings, noise)
    eye = ridge * torch.eye(n_factors + 1, dtype=x.dtype, device=x.device)
    eye[-1, -1] = 0.01
    k1 = n_factors + 1
    parts = slices(n, max(k1 * k1, d), _BATCH_ELEMENTS, x.device)
    counts = weighted(m, weight).sum(0)
    squares = weighted(filled.square(), weight).sum(0)
    course = [_parameters(anchor)]
    for _ in range(max_iter):
        if len(course) == 3:
            course = [extrapolated(*course)]
            mean, loadings, noise = course[0]
            anchor = FactorAnchor(mean, loadings, noise.exp().clamp(*NOISE))
        moments = functools.partial(_moments, anchor, x, observed, weight)
        found = in_threads(moments, parts, x.device)
        gram = sum((part for part, _ in found), x.new_zeros(d, k1 * k1))
        cross = sum((part for _, part in found), x.new_zeros(d, k1))
        system = gram.view(d, k1, k1) + eye
        solution = torch.linalg.solve(system, cross)  # (d, k + 1)
        residual = (
            squares
            - 2 * (solution * cross).sum(1)
            + torch.einsum("di,dij,dj->d", solution, gram.view(d, k1, k1), solution)
        )
        # One pseudo-row of unit variance and a floor: noise never collapses.
        noise = ((residual + 1.0) / (counts + 1.0)).clamp(*NOISE)
        change = (solution[:, :-1] - anchor.loadings).abs().max()
        anchor = FactorAnchor(solution[:, -1], solution[:, :-1].contiguous(), noise)
        course.append(_parameters(anchor))
        if change < tol or time.monotonic() > deadline:
            break
    return anchor
