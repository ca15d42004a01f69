"""Random tables of all kinds, made from a recipe, for the fuzzer and the tests.

A recipe is a handful of plain choices and a seed: the same recipe makes the same table,
so that a table that fails can be made again from one number, and a property-based test
can simplify it choice by choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

# Rows that are made beside those of the table, to be completed unseen.
N_NEW = 12
RATES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
PATTERNS = (
    "mcar", "monotone", "planned", "blocks", "own value", "empty rows",
    "empty columns", "none",
)  # fmt: skip
CONTAINERS = ("pandas", "polars", "float64", "float32", "objects")
STRATEGIES = ("mean", "median", "sample")
FLOATS = (
    "normal", "skewed", "heavy", "zeros", "counts", "likert", "constant",
    "nearly constant", "huge", "tiny", "collinear", "copied", "one-hot",
)  # fmt: skip
OTHERS = (
    "Int64", "uint8", "Float32", "bool", "boolean", "category", "ordered", "text",
    "string", "date", "duration",
)  # fmt: skip
KINDS = FLOATS + OTHERS


@dataclass(frozen=True)
class Recipe:
    """What a table is made of.

    Attributes
    ----------
    seed : int
    n_rows : int
    kinds : tuple of str
        Of the columns, out of ``KINDS``; arrays of floats hold those of ``FLOATS``
        alone, and a copy of a normal column in the place of any other.
    rate : float
        Share of missing cells, roughly.
    pattern : str
        Out of ``PATTERNS``.
    container : str
        Out of ``CONTAINERS``.
    n_distinct : int
        Rows that differ, the others being copies of them; 0 for all.
    """

    seed: int
    n_rows: int
    kinds: tuple
    rate: float = 0.3
    pattern: str = "mcar"
    container: str = "pandas"
    n_distinct: int = 0


@dataclass(frozen=True)
class Options:
    """How the imputer is called; modalities are groups of columns, or not given."""

    max_epochs: int = 0
    strategy: str = "mean"
    n_bootstraps: int = 0
    self_masking: object = "auto"
    has_modalities: bool = False
    keep_empty_features: bool = True

    def of(self, recipe):
        """Parameters of an imputer for the table of a recipe."""
        parameters = dict(vars(self), random_state=recipe.seed)
        names = [*range(len(recipe.kinds))]
        if recipe.container in ("pandas", "polars"):
            names = column_names(recipe)
        if parameters.pop("has_modalities"):
            half = -(-len(names) // 2)
            groups = {"first": names[:half], "second": names[half:]}
            parameters["modalities"] = {k: v for k, v in groups.items() if v}
        return parameters


def random_recipe(seed):
    """Recipe and options of the table with this number."""
    rng = np.random.default_rng(seed)
    n_columns = int(np.exp(rng.uniform(0, np.log(15))))
    recipe = Recipe(
        seed=int(seed),
        n_rows=int(np.exp(np.log(400.99) * rng.random() ** 1.2)),
        kinds=tuple(rng.choice(KINDS, n_columns).tolist()),
        rate=float(rng.choice(RATES)),
        pattern=str(rng.choice(PATTERNS)),
        container=str(rng.choice(CONTAINERS, p=[0.4, 0.2, 0.15, 0.1, 0.15])),
    )
    if rng.random() < 0.2:
        recipe = replace(recipe, n_distinct=int(rng.integers(1, 6)))
    options = Options(
        max_epochs=int(rng.choice([0, 0, 0, 0, 1, 3])),
        strategy=str(rng.choice(STRATEGIES)),
        n_bootstraps=int(rng.choice([0, 0, 2])),
        self_masking=["auto", True, False][int(rng.integers(3))],
        has_modalities=bool(rng.random() < 0.2),
        keep_empty_features=bool(rng.random() < 0.8),
    )
    return recipe, options


def column_names(recipe):
    """Names of the columns, str, one for every kind."""
    return [f"{kind} {j}" for j, kind in enumerate(recipe.kinds)]


def make_table(recipe):
    """Make the table of a recipe, and some rows more with other missing patterns.

    Returns
    -------
    table, new : pandas or polars frame, or array
        Of ``recipe.n_rows`` and of ``N_NEW`` rows.
    """
    rng = np.random.default_rng([recipe.seed, 1])
    frame = _complete_frame(recipe, rng)
    missing = _missing(recipe, frame, rng)
    missing[recipe.n_rows :] = rng.random((N_NEW, missing.shape[1])) < rng.random()
    columns = {
        name: _hidden(frame[name], missing[:, j]) for j, name in enumerate(frame)
    }
    frame = pd.DataFrame(columns)
    parts = frame.iloc[: recipe.n_rows], frame.iloc[recipe.n_rows :]
    return tuple(_contained(part.reset_index(drop=True), recipe) for part in parts)


def _complete_frame(recipe, rng):
    n = recipe.n_rows + N_NEW
    latent = rng.normal(size=(n, 2))
    is_array = recipe.container in ("float64", "float32")
    columns = []
    for kind in recipe.kinds:
        kind = "normal" if is_array and kind in OTHERS else kind
        x = latent @ rng.normal(size=2) + 0.5 * rng.normal(size=n)
        columns.append(_column(kind, x, latent[:, 0], columns, rng))
    frame = pd.DataFrame(dict(zip(column_names(recipe), columns, strict=True)))
    if recipe.n_distinct:
        again = np.arange(n) % recipe.n_distinct
        frame = frame.iloc[again].reset_index(drop=True)
    if recipe.container == "float32":  # beyond its range, values are infinite
        frame = frame.clip(-1e37, 1e37)
    return frame


def _column(kind, x, latent, others, rng):
    """Make a complete column of a kind from standardised numbers x (n,)."""
    n = len(x)
    numbers = [other for other in others if other.dtype.kind == "f"]
    if kind in ("category", "ordered", "text", "string"):
        return _levels(kind, x, rng)
    if kind in ("collinear", "copied"):
        other = numbers[int(rng.integers(len(numbers)))] if numbers else pd.Series(x)
        unit = float(rng.choice([-2.0, 0.5, 1e3]))
        return other.copy() if kind == "copied" else unit * other / 4 + 1
    made = {
        "normal": lambda: x,
        "skewed": lambda: np.exp(2 * x),
        "heavy": lambda: x + rng.standard_t(1.2, n),
        "zeros": lambda: np.where(rng.random(n) < 0.6, 0.0, np.exp(x)),
        "counts": lambda: rng.poisson(np.exp(x.clip(-3, 4))).astype(float),
        "likert": lambda: np.digitize(x, [-1, -0.3, 0.3, 1]) + 1.0,
        "constant": lambda: np.full(n, float(rng.choice([0.0, 7.25, -1e12]))),
        "nearly constant": lambda: 7.25 + (np.arange(n) == n // 2) * 1e-9,
        "huge": lambda: (100 + x) * float(rng.choice([1e10, 1e100])),
        "tiny": lambda: x * float(rng.choice([1e-12, 1e-100])),
        "one-hot": lambda: (np.digitize(latent, [-0.5, 0.5]) == len(others) % 3) * 1.0,
        "Float32": lambda: x.astype(np.float32),
        "Int64": lambda: np.rint(10 * x).astype(np.int64),
        "uint8": lambda: np.digitize(x, [-1, 0, 1]).astype(np.uint8),
        "bool": lambda: x > 0,
        "boolean": lambda: x > 1,
        "date": lambda: np.datetime64("2020-01-01") + np.rint(9 * x).astype("m8[D]"),
        "duration": lambda: np.rint(1e6 * np.exp(x)).astype("m8[us]"),
    }[kind]()
    if kind in ("date", "duration"):
        return pd.Series(made.astype("M8[ns]" if kind == "date" else "m8[ns]"))
    names = {"Int64": "Int64", "uint8": "UInt8", "boolean": "boolean"}
    return pd.Series(made, dtype=names.get(kind, made.dtype))


def _levels(kind, x, rng):
    """Make a column of two to six levels, not all of which have to occur."""
    n_levels = int(rng.integers(2, 7))
    codes = np.digitize(x, np.linspace(-1.5, 1.5, n_levels - 1))
    names = np.array(rng.permutation(list("cabdfe"))[:n_levels], dtype=object)
    if kind in ("category", "ordered"):
        levels = pd.Categorical.from_codes(codes, names, ordered=kind == "ordered")
        return pd.Series(levels)
    return pd.Series(names[codes], dtype="string" if kind == "string" else object)


def _missing(recipe, frame, rng):
    """Choose the missing cells by the recipe's pattern, (n, d)."""
    (n, d), rate = frame.shape, recipe.rate
    if recipe.pattern == "none":
        return np.zeros((n, d), dtype=bool)
    if recipe.pattern == "monotone":  # a panel: lost from some column on
        first = np.where(rng.random(n) < rate, rng.integers(0, d, n), d)
        return np.arange(d) >= first[:, None]
    if recipe.pattern == "planned":  # every row has a booklet's columns, and a core
        n_booklets = 3
        booklet = rng.integers(0, n_booklets + 1, d)
        return (booklet < n_booklets) & (booklet != rng.integers(0, n_booklets, (n, 1)))
    if recipe.pattern == "blocks":
        group = rng.integers(0, 3, d)
        return (rng.random((n, 3)) < rate)[:, group]
    if recipe.pattern == "own value":
        rank = pd.DataFrame({c: pd.factorize(frame[c], sort=True)[0] for c in frame})
        return (rank.rank(pct=True) > 1 - rate).to_numpy(copy=True)
    missing = rng.random((n, d)) < rate
    if recipe.pattern == "empty rows":
        missing[rng.random(n) < 0.3] = True
    if recipe.pattern == "empty columns":
        missing[:, rng.random(d) < 0.3] = True
    return missing


def _hidden(column, missing):
    """Hide cells of a column; truth values become objects where any is missing."""
    if not missing.any():
        return column
    if column.dtype == bool:
        column = column.astype(object)
    return column.mask(missing)


def _contained(frame, recipe):
    """Put a frame into the recipe's container."""
    if recipe.container in ("float64", "float32"):
        return frame.to_numpy(dtype=recipe.container, copy=True)
    if recipe.container == "objects":
        cells = frame.astype(object).to_numpy(copy=True)
        cells[frame.isna().to_numpy()] = np.nan
        return cells
    if recipe.container == "polars":
        import polars as pl

        return pl.from_pandas(frame)
    return frame
