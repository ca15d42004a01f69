"""Categorical columns as coordinates of the anchor: scores of their levels.

A level's scores are a few numbers, in the directions in which levels differ most in the
means of the other columns: a correspondence analysis (Greenacre, 1984) that takes
numeric columns along. Root-frequency times a mean has the same noise for every level,
so that its singular vectors are not led by rare levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..._shared.contract import Rows
from ..._shared.weights import some_weights, weighted

# An exact anchor affords so many.
MAX_COORDINATES = 64
MAX_FIT_ROWS = 20_000
# Beyond so many levels, a cost that is cubic in them is one of seconds.
MANY_LEVELS = 256


@dataclass(frozen=True)
class ScoreSettings:
    """How levels are scored. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    max_coordinates : int
        Columns and further scores together. (NOTES, "40 coordinates at most".)
    max_scores : int
        Scores of a column's levels; with 1, levels lie on a line. (NOTES, the ablation
        of cells.)
    max_partner_levels : int
        Levels of another column that take part in scoring a column. (Not measured.)
    shrinkage : float
        Rows' worth of the overall mean that a level's scores are shrunken by. (Not
        measured.)
    order_rows : float
        Rows' worth of its neighbours that a level's means are smoothed by where levels
        have an order. (NOTES, "Ordered levels".)
    reach : float
        Standardised values are cut there, since outliers would lead the scores. (Not
        measured.)
    """

    max_coordinates: int = 40
    max_scores: int = 8
    max_partner_levels: int = 20
    shrinkage: float = 5.0
    order_rows: float = 20.0
    reach: float = 3.0


DEFAULT = ScoreSettings()


class Coordinates(nn.Module):
    """Columns of a mixed table as coordinates of the anchor.

    Numeric columns come first, then the scores of the categorical ones.

    Parameters
    ----------
    n_columns : int
    scores : dict
        For each categorical column the scores of its levels, (n_levels, n_scores),
        and their frequencies, (n_levels,).
    """

    def __init__(self, n_columns, scores):
        super().__init__()
        self.categorical = sorted(scores)
        numeric = np.setdiff1d(np.arange(n_columns), self.categorical)
        sizes = [scores[j][0].shape for j in self.categorical]
        n_levels = max((k for k, _ in sizes), default=0)
        width = max((r for _, r in sizes), default=0)
        table = np.zeros((len(sizes), n_levels, width))
        share = np.zeros((len(sizes), n_levels))
        used = np.zeros((len(sizes), width), dtype=bool)
        for c, j in enumerate(self.categorical):
            k, r = sizes[c]
            table[c, :k, :r], share[c, :k] = scores[j]
            used[c, :r] = True
        column = [
            np.full(r, j) for (_, r), j in zip(sizes, self.categorical, strict=True)
        ]
        slots = np.zeros(used.shape, dtype=np.int64)
        slots[used] = len(numeric) + np.arange(used.sum())
        self.n_numeric, self.n_columns = len(numeric), n_columns
        # Further coordinates, which are never completed: `MedianDistances`.
        self.distances = None
        # Whether the anchor's variances are freed of what its ridge adds to them.
        self.is_relieved = False
        for name, array in {
            "numeric": numeric,
            "column": np.concatenate([numeric, *column]).astype(np.int64),
            "codes_of": np.array(self.categorical, dtype=np.int64),
            "table": table,
            "share": share,
            "used": used,
            "slots": slots,
        }.items():
            self.register_buffer(name, torch.as_tensor(array))

    @property
    def is_plain(self):
        """Whether every column is numeric."""
        return not self.categorical

    @property
    def n_base(self):
        """Coordinates without median distances."""
        return len(self.column)

    @property
    def n_all(self):
        """Coordinates with median distances."""
        return self.n_base + (0 if self.distances is None else len(self.distances))

    def scores(self, values):
        """Scores of categorical cells by their codes: (B, d) -> (B, C, r)."""
        codes = values[:, self.codes_of].long()  # (B, C)
        columns = torch.arange(len(self.categorical), device=codes.device)
        return self.table[columns, codes]

    def expand(self, values, observed):
        """Cells of columns to cells of all coordinates, distances included."""
        x, o = self.base(values, observed)
        return (x, o) if self.distances is None else self.distances.append(x, o)

    def base(self, values, observed):
        """Cells of columns to cells of coordinates: (B, d) twice -> (B, D) twice."""
        if self.is_plain:
            return values, observed
        scores = self.scores(values)[:, self.used].to(values.dtype)
        return torch.cat([values[:, self.numeric], scores], 1), observed[:, self.column]

    def to_columns(self, coordinates):
        """Cells of coordinates as those of the numeric columns: (B, d), else 0."""
        if self.is_plain:
            return coordinates[:, : self.n_columns]
        out = coordinates.new_zeros(len(coordinates), self.n_columns)
        out[:, self.numeric] = coordinates[:, : self.n_numeric]
        return out


def score_levels(
    values, observed, n_levels, rows, settings=DEFAULT, weight=None, ordered=None
):
    """Scores of every categorical column.

    Parameters
    ----------
    values : float tensor of shape (n, d)
        Standardised values of numeric columns, codes of categorical ones.
    observed : bool tensor of shape (n, d)
    n_levels : int array of shape (d,)
        0 for numeric columns.
    rows : int array
        Rows that the scores are learnt from; frequencies are those of all.
    settings : ScoreSettings
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.
    ordered : bool array of shape (d,), optional
        Columns whose levels have an order.

    Returns
    -------
    Coordinates
    """
    d = values.shape[1]
    categorical = np.flatnonzero(n_levels)
    if not len(categorical):
        return Coordinates(d, {}).to(values.device)
    directions, frequency = {}, {}
    for j in categorical:
        seen = observed[:, j]
        counts = torch.bincount(
            values[seen, j].long(),
            some_weights(weight, seen),
            minlength=int(n_levels[j]),
        ).double()
        frequency[j] = counts / counts.sum().clamp_min(1)
    rows = rows[:: 1 + len(rows) // MAX_FIT_ROWS]
    values, some = values[rows], observed[rows]
    own = some_weights(weight, rows)
    if ordered is None:
        ordered = np.zeros(d, dtype=bool)
    partners = _partners(values, some, n_levels, frequency, settings)
    for j in categorical:
        column = Rows(values[:, j], some[:, j], own)
        directions[j] = _directions(
            column, frequency[j], partners, j, settings, bool(ordered[j])
        )
    strengths = {j: v for j, (_, v) in directions.items()}
    sizes = _share_out(strengths, settings.max_coordinates - d)
    scores = {}
    for j, size in sizes.items():
        share = frequency[j]
        n = float(weighted(observed[:, j], weight).sum())
        root = (share + settings.shrinkage / max(n, 1.0)).sqrt()
        scores[j] = (
            (directions[j][0][:, :size] / root[:, None]).cpu().numpy(),
            share.cpu().numpy(),
        )
    return Coordinates(d, scores).to(values.device)


def _partners(values, observed, n_levels, frequency, settings):
    """Standardised columns and indicators, (n, m), observed or not, their column."""
    parts, seen, column = [], [], []
    for j, k in enumerate(n_levels):
        if k == 0:
            part = values[:, j : j + 1].clamp(-settings.reach, settings.reach).double()
        else:
            p = frequency[j]
            often = torch.argsort(p, descending=True)[: settings.max_partner_levels]
            part = (values[:, j, None].long() == often).double() - p[often]
            part = part / (p[often] * (1 - p[often])).clamp_min(1e-12).sqrt()
        parts.append(part)
        seen.append(observed[:, j, None].expand_as(part))
        column += [j] * part.shape[1]
    seen = torch.cat(seen, 1)
    return torch.where(seen, torch.cat(parts, 1), 0.0), seen, np.array(column)


def _directions(rows, share, partners, j, settings, ordered):
    """Directions among a column's levels, (K, r), and their strength, (r,)."""
    codes, observed = rows.values, rows.observed
    values, seen, column = partners
    other = torch.as_tensor(np.flatnonzero(column != j), device=codes.device)
    codes, weight = codes[observed].long(), some_weights(rows.weight, observed)
    values = weighted(values[observed][:, other], weight)
    seen = weighted(seen[observed][:, other].double(), weight)
    # Root-frequency times a level's mean: its noise is the same for every level.
    sums = values.new_zeros(len(share), len(other)).index_add_(0, codes, values)
    pairs = seen.sum(0).clamp_min(1.0)
    root = share.sqrt()
    strength = sums / pairs / root.clamp_min(1e-6)[:, None]
    if ordered and settings.order_rows and len(share) <= MANY_LEVELS:
        strength = _smoothed(strength, share, settings.order_rows / max(1, len(codes)))
    size = max(1, min(settings.max_scores, len(share) - 1))
    basis = None
    if len(share) > max(MANY_LEVELS, 2 * len(other)):
        # The leading directions lie in the span of the columns and of the root; a few
        # levels' own directions, the most frequent ones', make it large enough.
        own = torch.zeros_like(share)[:, None].repeat(1, size)
        own[share.argsort(descending=True)[:size], torch.arange(size)] = 1.0
        basis, _ = torch.linalg.qr(torch.cat([strength, root[:, None], own], 1))
        strength, root = basis.T @ strength, basis.T @ root
    # Directions without any relation come last, so that no column lacks a score.
    center = torch.eye(len(root), dtype=root.dtype, device=root.device)
    center = center - torch.outer(root, root)
    u, s, _ = torch.linalg.svd(
        torch.cat([strength, 1e-6 * center], 1), full_matrices=False
    )
    if basis is not None:
        u = basis @ u
    return u[:, :size], s[:size].cpu().numpy()


def _smoothed(strength, share, penalty):
    """Root-frequencies times means that are smoothed along the order of the levels.

    The means m minimise sum_k share_k (m_k - mean_k)^2 + penalty sum_k (m_k+1 - m_k)^2.

    Shapes: (K, m), (K,).
    """
    steps = torch.diff(torch.eye(len(share), dtype=share.dtype, device=share.device))
    root = share.sqrt()[:, None]
    system = torch.diag(share) + penalty * steps @ steps.T
    return root * torch.linalg.solve(system, root * strength)


def _share_out(strengths, free):
    """How many scores each column gets, if so many coordinates are free for them."""
    sizes = dict.fromkeys(strengths, 1)
    extra = sorted(
        ((s, j) for j, strength in strengths.items() for s in strength[1:]),
        reverse=True,
    )
    # Wide tables have a low-rank anchor, whose cost hardly depends on them.
    limit = free if free > 0 else 2 * len(strengths)
    for _, j in extra[:limit]:
        sizes[j] += 1
    return sizes
