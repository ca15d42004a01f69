"""A Gaussian with a full covariance, fitted to incomplete rows, and its conditional.

The expectation-maximisation for incomplete Gaussian data is Dempster, Laird and Rubin
(1977) with an inverse-Wishart prior (Schafer, 1997, section 5.3).
"""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from ..._shared.devices import in_threads, slices
from ..._shared.extrapolation import extrapolated
from ..._shared.linalg import cholesky, is_definite
from ..._shared.patterns import unique_patterns
from ..._shared.weights import some_weights, total_weight, weighted

MIN_SD = 1e-4
# Of a conditional variance, whatever the ridge may have added to it.
MIN_VARIANCE_LEFT = 0.01
# The prior is worth so many rows.
RIDGES = (1e-3, 1e-2, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
# Elements of one batch of (n, d, d) matrices; keeps the working set within ~100 MB.
_BATCH_ELEMENTS = 4_000_000
_BATCH_PATTERNS = 512


def _by_size(patterns):
    """Order of patterns by their number of missing cells."""
    return (~patterns).sum(1).argsort(stable=True)


class GaussianAnchor(nn.Module):
    """Multivariate normal with a full covariance, in float64.

    Works with the precision matrix: given the observed cells, the missing ones have
    the inverse of its missing block for a covariance, so that only a block as large as
    the number of missing cells is factorised.

    A ridge improves means and adds to every variance: of it ``excess``, what it added
    to the diagonal of ``cov``, is taken off again. What is left is the variance of the
    errors of the same means, see `_relief`.

    Shape of ``mean``: (d,), of ``cov`` and ``precision``: (d, d).
    """

    def __init__(self, mean, cov):
        super().__init__()
        self.excess = 0.0
        cov = cov.double()
        self.register_buffer("mean", mean.double())
        self.register_buffer("cov", cov)
        precision = torch.cholesky_inverse(cholesky(cov))
        self.register_buffer("precision", precision)

    def _cholesky(self, columns, filled):
        """Factors of blocks of the precision, the identity at padding, (P, U, U)."""
        cell = columns[:, :, None] * len(self.mean) + columns[:, None, :]
        block = self.precision.flatten().take(cell)
        both = filled[:, :, None] & filled[:, None, :]
        eye = torch.eye(block.shape[1], dtype=block.dtype, device=block.device)
        return cholesky(torch.where(both, block, eye))

    def _pull(self, x, pattern, columns, filled):
        """Precision times observed cells (about the mean, else 0), at missing cells."""
        return (x @ self.precision).gather(1, columns[pattern]) * filled[pattern]

    def _batches(self, observed, shared):
        """Patterns, rows that have them and the rows' pattern, in bounded batches.

        Patterns with like numbers of missing cells share a batch: little is padded.
        """
        device, cost = observed.device, observed.shape[1] ** 2
        sizes = cost, _BATCH_ELEMENTS, device, _BATCH_PATTERNS
        if not shared:
            order = _by_size(observed)
            for part in slices(len(observed), *sizes):
                rows = order[part]
                yield observed[rows], rows, torch.arange(len(rows), device=device)
            return
        patterns, inverse = unique_patterns(observed)
        order = _by_size(patterns)
        patterns, inverse = patterns[order], order.argsort()[inverse]
        order = torch.argsort(inverse)
        ends = torch.cumsum(torch.bincount(inverse, minlength=len(patterns)), 0)
        begin = 0
        for part in slices(len(patterns), *sizes):
            end = int(ends[part.stop - 1])
            rows = order[begin:end]
            yield patterns[part], rows, inverse[rows] - part.start
            begin = end

    def _factors(self, patterns, n_first):
        """Cholesky factors of every pattern's missing block of the precision.

        Missing cells stand at the end, those of the first columns last: their
        covariance needs the lower right corner of the factor's inverse only. Returns
        the cells' columns and whether they are no padding, (P, U) twice, the factors
        (P, U, U) and the inverses of their corners (P, A, A).
        """
        missing = ~patterns
        wanted = missing[:, :n_first]
        size, corner = (max(1, int(m.sum(1).max())) for m in (missing, wanted))
        rank = missing.to(torch.uint8)
        rank[:, :n_first] += wanted
        columns = rank.argsort(dim=1, stable=True)[:, -size:]
        filled = missing.gather(1, columns)
        chol = self._cholesky(columns, filled)
        last = chol[:, -corner:, -corner:]
        eye = torch.eye(corner, dtype=chol.dtype, device=chol.device).expand_as(last)
        inverse = torch.linalg.solve_triangular(last, eye, upper=False)
        return columns, filled, chol, inverse

    def _deviation(self, x, pattern, factors):
        """Means of the cells in `_factors`' corners given the rest, (n, A).

        About the mean, as is ``x`` (n, d), which is 0 at missing cells.
        """
        columns, filled, chol, inverse = factors
        pull = self._pull(x, pattern, columns, filled)
        parts = []
        for part in slices(len(x), chol[0].numel(), _BATCH_ELEMENTS, x.device):
            p, r = pattern[part], pull[part, :, None]
            z = torch.linalg.solve_triangular(chol[p], r, upper=False)
            z = z[:, -inverse.shape[1] :]
            parts.append((inverse[p] * z).sum(1))
        return -torch.cat(parts)

    def _relief(self, factors):
        """Variance that a unit of ``excess`` adds to the cells in corners, (P, A).

        The mean of a missing cell is a line in the observed ones, with coefficients b:
        noise of variance e in each of these columns adds e (1 + b'b) to the variance
        of its error. With C the covariance of the missing cells and P the precision,
        1 + b'b is the diagonal of C (P P) C.
        """
        columns, filled, chol, corner = factors
        eye = torch.eye(chol.shape[-1], dtype=chol.dtype, device=chol.device)
        inverse = torch.linalg.solve_triangular(chol, eye.expand_as(chol), upper=False)
        rows = inverse[:, :, -corner.shape[1] :].mT @ inverse  # (P, A, U)
        rows = rows * filled[:, None]
        cell = columns[:, :, None] * len(self.mean) + columns[:, None, :]
        square = (self.precision @ self.precision).flatten().take(cell)
        return ((rows @ square) * rows).sum(-1)

    def marginal(self, blocks):
        """Mean (C, r) and covariance (C, r, r) of blocks of columns, (C, r)."""
        return self.mean[blocks], self.cov[blocks[:, :, None], blocks[:, None, :]]

    def condition(self, values, observed, *, shared=True, blocks=None, n_first=None):
        """Mean and standard deviation of every cell given the observed ones.

        Parameters
        ----------
        values : tensor of shape (n, d); what stands at missing cells is ignored
        observed : bool tensor of shape (n, d)
        shared : bool
            Look for rows with the same pattern, to factorise once for all of them.
            Not worth the search where patterns are drawn at random.
        blocks : int tensor of shape (C, r), optional
            Columns whose joint covariance is wanted, those of a block being missing
            together.
        n_first : int, optional
            Only these first columns are computed; None for all of them.

        Returns
        -------
        mean, sd : tensors of shape (n, n_first), in the dtype of ``values``
            Observed cells have their own value and 0.
        cov : float64 tensor of shape (n, C, r, r), if ``blocks`` are given
            The identity where a block is observed.
        """
        x = torch.where(observed, values.double() - self.mean, 0.0)
        mean, variance = torch.zeros_like(x), torch.zeros_like(x)
        if blocks is not None:
            joint = x.new_empty(len(x), *blocks.shape, blocks.shape[1])

        def condition_batch(batch):
            patterns, rows, pattern = batch
            factors = self._factors(patterns, n_first)
            columns, _, _, inverse = factors
            deviation = self._deviation(x[rows], pattern, factors)
            if blocks is not None:
                cov = inverse.mT @ inverse
                found = _blocks_of(cov, patterns[:, :n_first], blocks)
                joint[rows] = found[pattern]
            target = columns[pattern, -inverse.shape[1] :]
            mean[rows] = mean[rows].scatter(1, target, deviation)
            spread = inverse.square().sum(1)
            if self.excess:
                less = spread - self.excess * self._relief(factors)
                spread = torch.maximum(less, MIN_VARIANCE_LEFT * spread)
            spread = spread[pattern]
            variance[rows] = variance[rows].scatter(1, target, spread)

        in_threads(condition_batch, self._batches(observed, shared), x.device)
        known, mean = observed[:, :n_first], (mean + self.mean)[:, :n_first]
        mean = torch.where(known, values[:, :n_first], mean.to(values.dtype))
        sd = variance[:, :n_first].clamp_min(MIN_SD**2).sqrt().to(values.dtype)
        sd = torch.where(known, 0.0, sd)
        return (mean, sd) if blocks is None else (mean, sd, joint)

    def expected_moments(self, batches):
        """Sum over rows of E[x] and of E[x x'], about ``mean``: the E-step.

        Parameters
        ----------
        batches : list of IncompleteRows

        Returns
        -------
        first, second : tensors of shape (d,), (d, d)
        """
        d = len(self.mean)

        def moments(rows):
            cov = torch.cholesky_inverse(self._cholesky(rows.columns, rows.filled))
            known = torch.where(rows.observed, rows.x - self.mean, 0.0)
            pull = (known @ self.precision).gather(1, rows.targets) * rows.is_target
            parts = slices(len(known), cov[0].numel(), _BATCH_ELEMENTS, known.device)
            deviation = [
                -torch.bmm(cov[rows.pattern[part]], pull[part, :, None]).squeeze(2)
                for part in parts
            ]
            deviation = torch.cat(deviation) * rows.is_target
            complete = known.scatter_add(1, rows.targets, deviation)
            counted = weighted(complete, rows.row_weight)
            second = (complete.T @ counted).flatten()
            cell = rows.columns[:, :, None] * d + rows.columns[:, None, :]  # (P, U, U)
            cov = cov * rows.weight[:, :, None] * rows.filled[:, None, :]
            second.index_add_(0, cell.flatten(), cov.flatten())
            return counted.sum(0), second

        found = in_threads(moments, batches, self.mean.device)
        first = sum((part for part, _ in found), torch.zeros_like(self.mean))
        second = sum((part for _, part in found), torch.zeros_like(self.cov).flatten())
        return first, second.view(d, d)

    def maximised(self, n, first, second, ridge):
        """Anchor of the highest posterior given expected moments: the M-step.

        Parameters
        ----------
        n : int
            Rows that the moments are summed over.
        first, second : tensors of shape (d,), (d, d)
            As `expected_moments` returns them; those of parts of the rows add up.
        ridge : float

        Returns
        -------
        GaussianAnchor
        """
        # The mean has a prior of its own, worth a hundredth of a row at zero: it only
        # matters for columns that are never observed.
        shift = first / (n + 0.01)
        scatter = second - n * torch.outer(shift, shift)
        cov = (scatter + ridge * torch.eye(len(shift)).to(scatter)) / (n + ridge)
        return GaussianAnchor(self.mean + shift, (cov + cov.T) / 2)


class IncompleteRows:
    """Rows of like patterns, and where their missing cells are, for many E-steps.

    Shape of ``x`` and ``observed``: (n, d); of ``pattern``, each row's, (n,); of the P
    patterns' missing ``columns``, padded to U of them, of ``filled``, which says which
    are no padding, and of ``weight``, the rows that have them: (P, U); the same of
    every row, ``targets`` and ``is_target``: (n, U). ``row_weight`` are the rows' own
    weights, (n,), or None.
    """

    def __init__(self, x, patterns, rows, pattern, row_weight=None):
        size = max(1, int((~patterns).sum(1).max()))
        self.columns = patterns.to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
        self.filled = ~patterns.gather(1, self.columns)
        self.row_weight = some_weights(row_weight, rows)
        counts = torch.bincount(pattern, self.row_weight, minlength=len(patterns))
        counts = counts.to(x.dtype)
        self.weight = counts[:, None] * self.filled
        self.x, self.pattern, self.observed = x[rows], pattern, patterns[pattern]
        self.targets, self.is_target = self.columns[pattern], self.filled[pattern]


def _blocks_of(cov, patterns, blocks):
    """Covariance of blocks out of those of all missing cells, (P, C, r, r).

    ``cov`` (P, U, U) is in the order of the missing columns, which stand at its end.
    """
    missing = ~patterns
    index = torch.cumsum(missing, 1) - 1 + cov.shape[1] - missing.sum(1, keepdim=True)
    index = index.clamp_min(0)[:, blocks]  # (P, C, r)
    every = torch.arange(len(cov), device=cov.device)[:, None, None, None]
    found = cov[every, index[..., :, None], index[..., None, :]]
    eye = torch.eye(blocks.shape[1], dtype=cov.dtype, device=cov.device)
    known = patterns[:, blocks]
    return torch.where((known[..., :, None] | known[..., None, :]), eye, found)


def fit_gaussian(
    x,
    observed,
    ridge,
    start=None,
    max_iter=40,
    tol=1e-3,
    deadline=math.inf,
    weight=None,
):
    """Posterior mode of a Gaussian by accelerated expectation-maximisation.

    Parameters
    ----------
    x : tensor of shape (n, d)
    observed : bool tensor of shape (n, d)
    ridge : float
        Weight of the prior covariance, the identity, in rows.
    start : GaussianAnchor, optional
        Where to begin.
    deadline : float
        Of `time.monotonic`; no iteration begins after it but the first.
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.

    Returns
    -------
    GaussianAnchor
    """
    x = x.double()
    n, d = total_weight(weight, x), x.shape[1]
    anchor = start or GaussianAnchor(x.new_zeros(d), torch.eye(d, device=x.device))
    batches = [
        IncompleteRows(x, *batch, weight) for batch in anchor._batches(observed, True)
    ]
    course = [(anchor.mean, anchor.cov)]
    for _ in range(max_iter):
        if len(course) == 3:
            mean, cov = extrapolated(*course)
            if is_definite(cov):
                anchor = GaussianAnchor(mean, cov)
            course = [(anchor.mean, anchor.cov)]
        anchor = anchor.maximised(n, *anchor.expected_moments(batches), ridge)
        change = (anchor.cov - course[-1][1]).abs().max()
        course.append((anchor.mean, anchor.cov))
        if change < tol or time.monotonic() > deadline:
            break
    return anchor
