"""Which coordinates and which ridge the anchor takes, decided by hidden cells."""

from __future__ import annotations

import numpy as np
import torch

from ._anchor import fitter
from ._warp import Warp

# Cells that decide: with more, the candidates' errors hardly change.
MAX_TUNING_CELLS = 30_000
MIN_TUNING_ROWS = 300
TUNING_ITER = 15
HIDE_RATE = 0.3


class HiddenCellError:
    """Squared error of anchors on cells hidden in held-out rows.

    Errors are taken in the columns' own units, of the mean within the observed range:
    the figure that the imputer is judged by.

    Parameters
    ----------
    values : tensor of shape (n, d), standardised
    observed : bool tensor of shape (n, d)
    generator : torch.Generator on the CPU
    """

    def __init__(self, values, observed, generator):
        n, d = values.shape
        n_rows = int(min(n, max(MIN_TUNING_ROWS, MAX_TUNING_CELLS // d)))
        order = torch.randperm(n, generator=generator)[:n_rows].to(values.device)
        self.values, self.observed = values[order], observed[order]
        self.fold = torch.arange(n_rows, device=values.device) % 3
        self.n_folds = 3 if n_rows * d < MAX_TUNING_CELLS // 2 else 1
        hide = torch.rand(n_rows, d, generator=generator) < HIDE_RATE
        self.hidden = hide.to(values.device) & self.observed
        self.low = torch.where(observed, values, torch.inf).amin(0)
        self.high = torch.where(observed, values, -torch.inf).amax(0)
        nodes, weights = np.polynomial.hermite_e.hermegauss(7)
        self.nodes, self.weights = nodes, weights / weights.sum()
        self.fit, self.ridges = fitter(*values.shape)

    def of(self, warp, ridges):
        """Summed squared error for every ridge and column, (n_ridges, d)."""
        warped = warp(self.values)
        errors = torch.zeros(len(ridges), self.values.shape[1], dtype=torch.float64)
        for fold in range(self.n_folds):
            held, kept = self.fold == fold, self.fold != fold
            anchor, best = None, torch.inf
            for i in np.argsort(ridges)[::-1]:  # from smooth to rough, warm
                anchor = self.fit(
                    warped[kept], self.observed[kept], ridges[i], anchor, TUNING_ITER
                )
                error = self._error(warp, anchor, warped, held)
                errors[i] += error
                best = min(best, float(error.sum()))
                if error.sum() > 1.5 * best:  # far past the valley
                    errors[np.asarray(ridges) < ridges[i]] += error
                    break
        return errors

    def _error(self, warp, anchor, warped, rows):
        hidden, truth = self.hidden[rows], self.values[rows]
        mean, sd = anchor.condition(warped[rows], self.observed[rows] & ~hidden)
        expected = torch.zeros_like(mean)
        nodes = [0.0] if warp.is_identity else self.nodes
        weights = [1.0] if warp.is_identity else self.weights
        for node, weight in zip(nodes, weights, strict=True):
            value = warp.inverse(mean + node * sd)
            # NaN only where a warp has lost its digits: the worst of all guesses.
            value = torch.nan_to_num(value, nan=0.0)
            expected += weight * torch.clamp(value, self.low, self.high)
        error = torch.where(hidden, expected - truth, 0.0)
        return error.square().sum(0).double().cpu()


def choose_coordinates(values, observed, generator):
    """Warp and ridge with the lowest error on hidden cells.

    Candidates are no warp, a warp of every column, and a warp of those columns that
    gained from it.

    Parameters
    ----------
    values : float32 tensor of shape (n, d), standardised
    observed : bool tensor of shape (n, d)
    generator : torch.Generator on the CPU

    Returns
    -------
    warp : Warp
    ridge : float
    """
    n, d = values.shape
    device = values.device
    judge = HiddenCellError(values, observed, generator)
    plain = Warp.identity(d).to(device)
    if n < 6:
        return plain, judge.ridges[-1]
    warp = Warp.fit(values.cpu().numpy(), observed.cpu().numpy()).to(device)
    candidates = []
    for candidate in (plain, warp):
        errors = judge.of(candidate, judge.ridges)
        best = int(errors.sum(1).argmin())
        candidates.append((float(errors.sum(1)[best]), candidate, judge.ridges[best]))
        if candidate is plain:
            plain_errors = errors[best]
        else:
            gained = (errors[best] < plain_errors).to(device)
    mixed = warp.only(gained)
    ridges = sorted({ridge for _, _, ridge in candidates})
    errors = judge.of(mixed, ridges).sum(1)
    best = int(errors.argmin())
    candidates.append((float(errors[best]), mixed, ridges[best]))
    _, warp, ridge = min(candidates, key=lambda candidate: candidate[0])
    return warp, ridge
