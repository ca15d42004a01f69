"""One graph from an incomplete table to a completed one: units, model, rounding.

It mirrors `TableCodec`, on numbers alone: codes of levels, steps of time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .._cells.network.posterior import LEVELS
from .._table.relations import Line
from .dense import DenseModel
from .dense_combined import DenseCombined

# What standardised values are cut to, as `Standardiser.encode` does.
REACH = 1e6


class Graph(nn.Module):
    """Completes rows: (n, d) float32 with NaN where a cell is missing.

    Returns the completed rows, (n, d_out) float32, and the probabilities of the levels
    of each categorical column that is asked for, (n, K).

    Parameters
    ----------
    codec : TableCodec
    model : CellModel or None
    statistic : "mean" or float
    keep_whole : bool
    stays : bool array of shape (d,)
        Columns that keep their missing cells.
    flags : int array
        Columns whose missing cells are flagged, after the others.
    columns : int array
        Columns that come out.
    probable : list of int
        Categorical columns, among those that are modelled.
    """

    def __init__(
        self, codec, model, statistic, keep_whole, stays, flags, columns, probable
    ):
        super().__init__()
        scaling = codec.scaling_
        self.n_kept = len(scaling.kept_)
        self.dense = None
        if model is not None:
            kind = DenseModel if model.partition is None else DenseCombined
            self.dense = kind(model, statistic)
        self.cell_columns = None
        if model is not None and model.partition is not None:
            self.cell_columns = model.partition.cells.tolist()
        self.counts = codec.n_levels_[scaling.kept_].tolist()
        self.probable, self.relations = probable, DenseRelations(codec.relations_)
        low, high = scaling.low_, scaling.high_
        constants = {
            "kept": scaling.kept_,
            "empty": scaling.empty_,
            "mean": scaling.mean_,
            "scale": scaling.scale_,
            "low": low,
            "high": high,
            "whole": scaling.is_whole(keep_whole),
            "n_levels": codec.n_levels_[scaling.kept_].astype(np.float64),
            "stays": np.asarray(stays, dtype=bool),
            "flags": np.asarray(flags, dtype=np.int64),
            "columns": np.asarray(columns, dtype=np.int64),
        }
        sizes = [len(grid) for grid in scaling.grids_]
        self.gridded = [k for k, size in enumerate(sizes) if size]
        grids = np.full((len(self.gridded), max(sizes, default=0)), np.inf)
        for row, k in enumerate(self.gridded):
            grids[row, : sizes[k]] = scaling.grids_[k]
        constants["grids"] = grids
        constants["reach"] = 3e-5 * scaling.scale_[self.gridded]
        for name, array in constants.items():
            self.register_buffer(name, torch.as_tensor(array))

    def forward(self, X):
        missing = torch.isnan(X)
        numbers = X.double()
        zero = torch.zeros_like(numbers)
        proba = []
        if self.n_kept:
            own, lost = numbers[:, self.kept], missing[:, self.kept]
            observed = ~lost & self._is_known(own)
            values = ((own - self.mean) / self.scale).clamp(-REACH, REACH)
            values = torch.where(observed, values, torch.zeros_like(values)).float()
            completed, posteriors = self.dense(values, observed)
            exact, known = self.relations.determine(own, observed)
            proba = self._probabilities(posteriors, exact, known)
            decoded = self._decoded(completed)
            decoded = torch.where(lost, decoded, own)
            decoded = self._related(decoded, exact, known, lost)
            numbers = numbers.index_copy(1, self.kept, decoded)
        if len(self.empty):
            filled = torch.where(missing, zero, numbers)
            numbers = numbers.index_copy(1, self.empty, filled[:, self.empty])
        numbers = torch.where(missing & self.stays, X.double(), numbers)
        out = numbers[:, self.columns].float()
        if len(self.flags):
            out = torch.cat([out, missing[:, self.flags].float()], 1)
        return (out, *proba)

    def _is_known(self, own):
        """Whether a cell is a number, or the code of a level that was seen."""
        is_code = (own >= 0) & (own < self.n_levels) & (own == torch.round(own))
        return is_code | (self.n_levels == 0)

    def _decoded(self, values):
        decoded = values.double() * self.scale + self.mean
        if self.gridded:
            some = torch.tensor(self.gridded)
            own = decoded[:, some]
            distance = (own[..., None] - self.grids).abs()
            nearest = distance.argmin(-1)  # (n, k)
            wide = self.grids[None].expand(own.shape[0], -1, -1)
            point = wide.gather(2, nearest[..., None])[..., 0]
            point = torch.where((own - point).abs() <= self.reach, point, own)
            decoded = decoded.index_copy(1, some, point)
        decoded = torch.where(self.whole, torch.round(decoded) + 0.0, decoded)
        return torch.minimum(torch.maximum(decoded, self.low), self.high)

    def _related(self, decoded, exact, known, lost):
        """Put what observed cells determine in its place, and make the rest agree."""
        if not self.relations.rules:
            return decoded
        found = torch.where(known, exact, decoded)
        found = self.relations.reconcile(found, known)
        inside = torch.minimum(torch.maximum(found, self.low), self.high)
        inside = torch.where(self.whole, torch.round(inside) + 0.0, inside)
        found = torch.where(known, found, inside)
        return torch.where(lost, found, decoded)

    def _probabilities(self, posteriors, exact, known):
        """Probabilities of levels, certain where a cell is known: a list of (n, K)."""
        found = []
        for column in self.probable:
            # Beside blocks columns are counted among the cells.
            slot = column
            if self.cell_columns is not None:
                slot = self.cell_columns.index(column)
            for posterior, places in zip(posteriors, self.dense.places, strict=True):
                if posterior.kind != LEVELS or slot not in places:
                    continue
                k = self.counts[column]
                share = torch.softmax(posterior.logits[places.index(slot)], -1)[:, :k]
                code = exact[:, column].clamp(0, k - 1).nan_to_num()
                certain = (code[:, None] == torch.arange(k)).to(share.dtype)
                found.append(torch.where(known[:, [column]], certain, share))
        return found


class DenseRelations(nn.Module):
    """The rules of `Relations` on arrays of fixed size.

    Parameters
    ----------
    relations : Relations
    """

    def __init__(self, relations):
        super().__init__()
        self.rules = relations.rules_
        self.means = [replace(r, decimals=None) for r in self.rules if r.is_affine]

    def determine(self, X, known):
        """Values and what is known, with what observed cells determine."""
        if not self.rules:
            return X, known
        return self._spread(X, known, self.rules)

    def reconcile(self, X, known):
        """Make completed cells agree, as `Relations.reconcile` does for means."""
        for j in sorted({rule.source for rule in self.means}):
            X, known = self._spread(X, known | _unit(j, X), self.means)
        return X

    def _spread(self, X, known, rules):
        for _ in range(_depth(rules)):
            for rule in rules:
                s, t = rule.source, rule.target
                values, holds = _applied(rule, X[:, s])
                new = (known[:, s] & ~known[:, t] & holds)[:, None] & _unit(t, X)
                X, known = torch.where(new, values[:, None], X), known | new
        return X, known


def _unit(j, X):
    """Mark column j of a table, bool (d,)."""
    return torch.arange(X.shape[1]) == j


def _depth(rules):
    """Count the passes after which nothing more can follow from anything."""
    passes = 1
    for start in {rule.source for rule in rules}:
        reached, depth = {start}, 0
        while True:
            more = {r.target for r in rules if r.source in reached} - reached
            if not more:
                break
            reached |= more
            depth += 1
        passes = max(passes, depth)
    return passes


def _applied(rule, x):
    """Values of a rule's target, (n,), and where it gives any."""
    if isinstance(rule, Line):
        u = torch.log(x) if rule.logs[0] else x
        y = rule.intercept + rule.slope * (u - rule.center)
        y = torch.exp(y) if rule.logs[1] else y
        holds = ~torch.isnan(y) & (y.abs() < torch.inf)
        if rule.decimals is not None:
            y = torch.round(y * 10.0**rule.decimals) / 10.0**rule.decimals
        return y.clamp(*rule.limits), holds
    keys = torch.as_tensor(np.asarray(rule.keys, dtype=np.float64))
    values = torch.as_tensor(np.asarray(rule.values, dtype=np.float64))
    # Keys are as the input can hold them.
    same = x[:, None] == keys.float().double()
    return values[same.double().argmax(1)], same.any(1)
