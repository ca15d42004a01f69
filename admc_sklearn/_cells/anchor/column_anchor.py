"""The anchor: a Gaussian over all columns, conditioned on whatever is observed.

`GaussianAnchor` holds a full covariance and is exact; `FactorAnchor` holds a low-rank
factor model and costs O(n_columns) a row. `fitter` chooses between them by width.

Categorical columns take part by the scores of their levels (see `level_scores`).
Given a row's observed cells the level's probabilities follow by Bayes' rule, as in
linear discriminant analysis:

    q(level k)  proportional to  p_k N(s_k; mu, S) / N(s_k; mu_0, S_0)

with p_k the level's frequency, s_k its scores, (mu, S) the Gaussian's conditional
moments of the scores and (mu_0, S_0) their marginal ones. Where nothing is observed q
is p, and rare levels are neither lost nor favoured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from ..._shared.held_out import some_rows
from ..._shared.linalg import cholesky
from ..._shared.weights import total_weight
from .factor_model import FACTOR_RIDGES, MAX_FACTORS, fit_factors
from .gaussian import RIDGES, fit_gaussian
from .level_scores import MAX_COORDINATES

MAX_FIT_ROWS = 20_000
# With median distances, rows times coordinates cubed: what the factorisations cost.
MAX_DISTANCE_WORK, MIN_DISTANCE_ROWS = 200_000_000, 5000
# Share of the levels' frequencies mixed into the anchor's probabilities: no level that
# was seen is ever impossible.
MARGINAL_SHARE = 1e-3


@dataclass(frozen=True)
class Anchored:
    """Conditional moments of a batch of rows under the anchor.

    Shape of ``mean`` and ``sd``, of numeric cells, 0 elsewhere: (B, d); of
    ``score_mean``: (B, C, r), ``score_precision``: (B, C, r, r), of the C categorical
    columns, both float64, of no meaning where a level is observed.
    """

    mean: torch.Tensor
    sd: torch.Tensor
    score_mean: torch.Tensor
    score_precision: torch.Tensor

    def __getitem__(self, rows):
        """Take a slice of the rows."""
        parts = (self.mean, self.sd, self.score_mean, self.score_precision)
        return Anchored(*(part if part is None else part[rows] for part in parts))

    def to(self, device):
        """Move the moments of numbers; those of scores stay where they are needed."""
        return replace(self, mean=self.mean.to(device), sd=self.sd.to(device))


class ColumnAnchor(nn.Module):
    """The anchor of columns: a Gaussian over their coordinates.

    Parameters
    ----------
    coordinates : Coordinates
    gaussian : GaussianAnchor or FactorAnchor
    """

    def __init__(self, coordinates, gaussian):
        super().__init__()
        self.coordinates, self.gaussian = coordinates, gaussian
        if coordinates.is_plain:
            return
        mean, cov = gaussian.marginal(coordinates.slots)
        mean, cov = self._unused(mean, cov)
        precision = torch.cholesky_inverse(cholesky(cov))
        self.register_buffer("precision", precision)  # (C, r, r)
        self.register_buffer("pull", torch.einsum("cij,cj->ci", precision, mean))
        s = coordinates.table  # (C, K, r)
        square = (s[..., :, None] * s[..., None, :]).flatten(2)
        self.register_buffer("features", torch.cat([s, -0.5 * square], 2).mT)

    def marginal_moments(self, columns):
        """Mean and sd of numeric columns where nothing is observed, float32 (g,)."""
        numeric = self.coordinates.numeric
        slots = torch.searchsorted(numeric, columns.to(numeric.device))
        mean, cov = self.gaussian.marginal(slots[:, None])
        mean, sd = mean[:, 0].float(), cov[:, 0, 0].sqrt().float()
        return mean.to(columns.device), sd.to(columns.device)

    @property
    def device(self):
        """The device of its parameters."""
        return self.gaussian.mean.device

    def _unused(self, mean, cov):
        """Moments with the identity at coordinates that a column does not have."""
        used = self.coordinates.used
        both = used[:, :, None] & used[:, None, :]
        eye = torch.eye(used.shape[1], dtype=cov.dtype, device=cov.device)
        return torch.where(used, mean, 0.0), torch.where(both, cov, eye)

    def condition(self, values, observed, *, shared=True):
        """Moments of every cell given the observed ones.

        Parameters
        ----------
        values : tensor of shape (B, d)
            Warped values of numeric cells, codes of categorical ones.
        observed : bool tensor of shape (B, d)
        shared : bool
            As in `GaussianAnchor.condition`.

        Returns
        -------
        Anchored
        """
        c = self.coordinates
        x, o = c.expand(values, observed)
        options = {"shared": shared, "n_first": c.n_base}
        if c.is_plain:
            moments = self.gaussian.condition(x, o, **options)
            return Anchored(*(c.to_columns(part) for part in moments), None, None)
        mean, sd, cov = self.gaussian.condition(x, o, blocks=c.slots, **options)
        scores = mean[:, c.slots].double()
        scores, cov = self._unused(scores, cov)
        missing = ~observed[:, c.codes_of]
        # Overwritten: the entries of observed levels are not used.
        cov[missing] = torch.cholesky_inverse(cholesky(cov[missing]))
        return Anchored(c.to_columns(mean), c.to_columns(sd), scores, cov)

    def log_mass(self, anchored, rows, slots, n_levels):
        """Log-probability of the levels of chosen cells.

        Parameters
        ----------
        anchored : Anchored
        rows : int tensor of shape (g, T)
        slots : int tensor of shape (g,)
            Places of the columns among the categorical ones.
        n_levels : int
            At least as many as any of these columns has.

        Returns
        -------
        float64 tensor of shape (g, T, n_levels); -inf where a column has fewer levels
        """
        mean = anchored.score_mean[rows, slots[:, None]]  # (g, T, r)
        precision = anchored.score_precision[rows, slots[:, None]]
        pull = torch.einsum("gtij,gtj->gti", precision, mean) - self.pull[slots, None]
        excess = (precision - self.precision[slots, None]).flatten(2)
        features = self.features[slots, :, :n_levels]
        share = self.coordinates.share[slots, None, :n_levels]
        fit = torch.bmm(torch.cat([pull, excess], 2), features) + share.log()
        mass = torch.softmax(fit, -1)
        return ((1 - MARGINAL_SHARE) * mass + MARGINAL_SHARE * share).log()


def fitter(n_rows, n_columns):
    """Choose the fit that suits a table's shape, and its grid of ridges.

    Returns
    -------
    fit : callable
        ``fit(x, observed, ridge, start=None, **options)`` returns an anchor; options
        are ``max_iter``, ``deadline``, of `time.monotonic`, and ``weight``, of rows.
    ridges : tuple of float
    """
    if n_columns <= MAX_COORDINATES:
        return fit_gaussian, RIDGES
    n_factors = max(1, min(MAX_FACTORS, n_rows // 4))

    def fit(x, observed, ridge, start=None, **options):
        del start  # begins at the principal components
        return fit_factors(x, observed, ridge, n_factors, **options)

    return fit, FACTOR_RIDGES


def fit_anchor(
    x, observed, coordinates, ridge, generator, start=None, weight=None, **options
):
    """Fit the anchor that suits the table's shape.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Warped numbers, close to standardised, and codes of levels.
    observed : bool tensor of shape (n, d)
    coordinates : Coordinates
    ridge : float
    generator : torch.Generator on the CPU
        Chooses rows where the table has more than an anchor needs.
    start : ColumnAnchor, optional
        Where to begin.
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.
    **options
        Of the fit that `fitter` chooses.

    Returns
    -------
    ColumnAnchor
    """
    limit = MAX_FIT_ROWS
    if coordinates.distances is not None:
        work = MAX_DISTANCE_WORK // coordinates.n_all**3
        limit = min(limit, max(MIN_DISTANCE_ROWS, work))
    if x.shape[0] > limit:
        x, observed, weight = some_rows(limit, generator, x, observed, weight)
    x, observed = coordinates.expand(x, observed)
    fit, _ = fitter(*x.shape)
    start = start and start.gaussian
    gaussian = fit(x, observed, ridge, start, weight=weight, **options)
    if coordinates.is_relieved:
        gaussian.excess = ridge / (total_weight(weight, x) + ridge)
    return ColumnAnchor(coordinates, gaussian)
