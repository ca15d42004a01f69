"""Singular matrices: of repeated rows, and of columns that follow from others."""

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn._shared.linalg import cholesky
from tests.conftest import quick


def gram(rows):
    rows = torch.tensor(np.asarray(rows), dtype=torch.float64)
    return rows.T @ rows


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_singular_matrices_have_a_factor(scale):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 1)) * scale
    cases = [
        gram(np.repeat(x, 4, axis=1)),  # equal columns
        gram(np.hstack([x, 3 * x, x - 2 * x, 0 * x])),
        gram(rng.normal(size=(2, 4)) * scale),  # fewer rows than columns
        gram(np.hstack([x, 1e-9 * x, 1e9 * x, x])),
        torch.zeros(4, 4, dtype=torch.float64),
        torch.eye(4, dtype=torch.float64) * scale,
    ]
    whole = torch.stack(cases)
    root = cholesky(whole)
    assert torch.isfinite(root).all()
    largest = whole.abs().amax((1, 2), keepdim=True)
    assert ((root @ root.mT - whole).abs() <= 1e-8 * largest + 1e-15).all()
    for k, case in enumerate(cases):  # each is mended by itself, or left alone
        torch.testing.assert_close(cholesky(case), root[k])
    torch.testing.assert_close(root[-1], torch.linalg.cholesky(cases[-1]))
    assert cholesky(torch.zeros(2, 0, 0)).shape == (2, 0, 0)


def test_what_is_no_covariance_is_refused():
    for matrix in (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), -torch.eye(2)):
        with pytest.raises(torch.linalg.LinAlgError, match="positive definite"):
            cholesky(matrix)


def repeated_rows(rng, n, n_distinct=4):
    """Few distinct rows, many times over: a designed experiment."""
    few = pd.DataFrame(
        {
            "a": rng.normal(size=n_distinct).round(1),
            "b": rng.integers(0, 5, n_distinct).astype(float),
            "c": rng.choice(["u", "v"], n_distinct),
            "d": rng.choice(["x", "y", "z"], n_distinct),
            "e": pd.array(rng.choice([True, False], n_distinct), dtype="boolean"),
        }
    )
    few = few.mask(rng.random(few.shape) < 0.3)
    return pd.concat([few] * (n // n_distinct), ignore_index=True)


def collinear(rng, n):
    x = rng.normal(size=(n, 2))
    table = np.hstack([x, x, x @ [[1.0], [2.0]], 1e9 * x[:, :1], 1e-9 * x[:, 1:]])
    return np.where(rng.random(table.shape) < 0.3, np.nan, table)


def one_hot(rng, n):
    """All indicators of a level are lost together; one of them is a constant."""
    table = np.eye(4)[rng.integers(0, 4, n)]
    table = np.hstack([table, np.ones((n, 1)), table[:, :2] + table[:, 2:]])
    table[rng.random(n) < 0.4, :4] = np.nan
    return np.where(rng.random(table.shape) < 0.1, np.nan, table)


def constants(rng, n):
    table = np.tile([1.0, 0.0, -1e12, 1e-12], (n, 1))
    table[0, 0] += 1e-9
    return np.where(rng.random(table.shape) < 0.5, np.nan, table)


def wide(rng, n):
    """So many columns that the anchor is a factor model, and all of them are equal."""
    table = np.repeat(rng.normal(size=(n, 1)), 150, axis=1)
    return np.where(rng.random(table.shape) < 0.5, np.nan, table)


@pytest.mark.filterwarnings("ignore:Columns without")
@pytest.mark.parametrize("table", [repeated_rows, collinear, one_hot, constants, wide])
def test_singular_tables_are_completed(table):
    X = table(np.random.default_rng(0), 60)
    imputer = quick(max_epochs=1, n_bootstraps=1, self_masking=True).fit(X)
    assert not pd.isna(imputer.transform(X)).any(axis=None)
    assert not any(pd.isna(draw).any(axis=None) for draw in imputer.sample(X, 2))


@pytest.mark.filterwarnings("ignore:Columns without")
@pytest.mark.parametrize("n_distinct", [3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_few_rows_many_times_over_are_no_singular_matrix(seed, n_distinct):
    X = repeated_rows(np.random.default_rng(seed), 120, n_distinct)
    assert quick(max_epochs=0).fit_transform(X).shape == X.shape


@pytest.mark.parametrize("table", [repeated_rows, collinear, one_hot, constants])
def test_singular_modalities_are_completed(table):
    X = pd.DataFrame(table(np.random.default_rng(0), 120)).select_dtypes("number")
    X.columns = [f"{name}" for name in X]
    rng = np.random.default_rng(1)
    other = np.repeat(rng.normal(size=(len(X), 1)), 3, axis=1)
    other[rng.random(len(X)) < 0.3] = np.nan
    X = X.assign(**{f"z{j}": other[:, j] for j in range(3)})
    names = list(X)
    modalities = {"first": names[:2], "second": names[2:-3], "third": names[-3:]}
    modalities = {name: own for name, own in modalities.items() if own}
    imputer = quick(modalities=modalities, max_epochs=1).fit(X)
    assert np.isfinite(imputer.transform(X)).all()
    assert np.isfinite(np.stack([d.to_numpy() for d in imputer.sample(X, 2)])).all()
