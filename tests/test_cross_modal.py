"""CrossModalFeatures: counterparts from the other modalities, no row knows itself."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from admc_sklearn import ADMCImputer, CrossModalFeatures

pytestmark = pytest.mark.usefixtures("light_fits")
MODALITIES = {"a": slice(0, 8), "b": slice(8, 14)}


def views(n=150, seed=0):
    """Two views of three hidden numbers, and one column beside them."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 3))
    mix = np.random.default_rng(9).normal(size=(3, 14))
    X = hidden @ mix + 0.1 * rng.normal(size=(n, 14))
    return np.hstack([X, hidden[:, :1]])


def features(cv=3, **parameters):
    parameters = {"modalities": MODALITIES, "max_epochs": 0, **parameters}
    return CrossModalFeatures(ADMCImputer(random_state=0, **parameters), cv=cv)


def test_counterparts_come_from_the_other_modalities_alone():
    X = views()
    model = features().fit(X[:100])
    other = X[100:].copy()
    other[:, :8] = np.random.default_rng(1).normal(size=(50, 8))
    ours, changed = model.transform(X[100:]), model.transform(other)
    assert ours.shape == (50, 30)
    assert np.array_equal(ours[:, :15], X[100:])
    # Its own modality is not looked at; the others are.
    assert np.array_equal(ours[:, 15:23], changed[:, 15:23])
    assert not np.allclose(ours[:, 23:29], changed[:, 23:29], atol=0.1)
    error = np.sqrt(np.mean((ours[:, 15:23] - X[100:, :8]) ** 2))
    assert error < 0.3 * X[:, :8].std()


def test_missing_modalities_are_completed_by_their_counterparts():
    X = views()
    model = features().fit(X[:100])
    lacking = X[100:].copy()
    lacking[:, :8] = np.nan
    out = model.transform(lacking)
    assert np.array_equal(out[:, :8], out[:, 15:23])
    assert np.array_equal(out, model.transform(lacking))


def test_no_training_row_is_generated_by_an_imputer_that_knows_it():
    class Spy(ADMCImputer):
        seen = []  # noqa: RUF012

        def fit(self, X, y=None, *, groups=None):
            self.known = {row.tobytes() for row in np.ascontiguousarray(X)}
            return super().fit(X, y, groups=groups)

        def transform(self, X):
            rows = np.ascontiguousarray(np.asarray(X, dtype=float))
            complete = rows[~np.isnan(rows).any(axis=1)]
            self.seen.append(sum(row.tobytes() in self.known for row in complete))
            return super().transform(X)

    X = views(90)
    imputer = Spy(modalities=MODALITIES, max_epochs=0, random_state=0)
    CrossModalFeatures(imputer, cv=3).fit_transform(X)
    assert sum(Spy.seen) == 0
    Spy.seen.clear()
    CrossModalFeatures(imputer, cv=0).fit_transform(X)
    assert sum(Spy.seen) == 90


def test_folds_keep_groups_and_the_order_of_rows():
    X = views(90)
    groups = np.arange(90) % 4
    out = features(cv=4).fit_transform(X, groups=groups)
    assert np.array_equal(out[:, :15], X)
    rest = groups != 1
    model = features(cv=0).fit(X[rest], groups=groups[rest])
    expected = model.transform(X[~rest])
    assert np.allclose(out[groups == 1], expected, atol=1e-4)


def test_without_modalities_every_column_has_a_counterpart():
    X = views(60)[:, :4]
    out = features(cv=2, modalities=None).fit_transform(X)
    assert out.shape == (60, 8)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_out_with_names_and_dtypes(library):
    frame = pd.DataFrame(views(60), columns=[f"c{j}" for j in range(15)])
    frame["kind"] = pd.Categorical(np.where(frame["c14"] > 0, "u", "v"))
    frame.loc[:9, "kind"] = None
    X = frame if library == "pandas" else pl.from_pandas(frame)
    model = features(cv=2, modalities={"a": [f"c{j}" for j in range(8)]})
    out = model.set_output(transform=library).fit_transform(X)
    assert list(out.columns) == list(model.get_feature_names_out())
    assert list(out.columns)[16:18] == ["gen_c0", "gen_c1"]
    assert out["gen_kind"].dtype == out["kind"].dtype
    if library == "pandas":
        assert out.index.equals(frame.index)
        assert set(out["gen_kind"]) <= {"u", "v"}


def test_in_a_pipeline_under_cross_validation():
    X = views(80)
    y = X[:, 14] > 0
    pipeline = make_pipeline(features(cv=2), LogisticRegression())
    assert cross_val_score(clone(pipeline), X, y, cv=2).mean() > 0.9


def test_a_marker_other_than_nan():
    X = views(60)
    X[:5, :8] = -999.0
    out = features(cv=2, missing_values=-999.0).fit_transform(X)
    assert np.isfinite(out).all()
    assert not (out == -999.0).any()


def test_a_wrong_number_of_folds_is_an_error():
    with pytest.raises(ValueError, match="cv"):
        features(cv=-1).fit(views(30))
