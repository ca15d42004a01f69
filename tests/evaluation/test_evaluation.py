"""Scores known by hand, searches that tune, comparisons that survive and resume."""

import pickle

import joblib
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, QuantileTransformer, StandardScaler

from admc_sklearn import ImputationDisplay
from admc_sklearn.evaluation import (
    compare_imputers,
    imputation_scores,
    make_imputation_scorer,
    ranking,
)
from admc_sklearn.missingness import ampute
from tests.conftest import hide, quick

COLUMNS = "imputer mechanism rate split rmse mae accuracy fit_time transform_time"
COLUMNS = [*COLUMNS.split(), "score", "rank", "error"]
FIGURES = ["rmse", "mae", "accuracy", "score", "rank"]
MEAN = {"mean": SimpleImputer()}
BOTH = {"mean": SimpleImputer(), "knn": KNNImputer()}


def table(n=60, d=4, noise=0.3, seed=0):
    """Rows of one factor, so that neighbours know more than means."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + noise * rng.normal(size=(n, d))


def people(n=60, seed=0):
    rng = np.random.default_rng(seed)
    side = rng.normal(size=n)
    return pd.DataFrame(
        {
            "height": side + 0.1 * rng.normal(size=n),
            "age": pd.array(rng.integers(18, 90, n), dtype="Int64"),
            "town": pd.Categorical(np.where(side > 0, "Ulm", "Bern")),
            "since": np.datetime64("2020-01-01") + rng.integers(0, 900, n),
            "member": side > 0,
            "note": np.where(side > 0, "yes", "no").astype(object),
        }
    )


class Filled(TransformerMixin, BaseEstimator):
    """Forward and backward fill of frames, whatever their dtypes; for tests alone."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        is_polars = isinstance(X, pl.DataFrame)
        if is_polars:
            return X.fill_null(strategy="forward").fill_null(strategy="backward")
        return X.ffill().bfill()


class Wrong(SimpleImputer):
    """An imputer that fails in a stated way."""

    def __init__(self, way="fit"):
        super().__init__()
        self.way = way

    def fit(self, X, y=None):
        if self.way == "fit":
            raise RuntimeError("no\nidea")
        if self.way == "threads":
            raise RuntimeError(f"{torch.get_num_threads()} threads")
        return super().fit(X, y)

    def transform(self, X):
        completed = super().transform(X)
        if self.way == "transform":
            raise ZeroDivisionError("by zero")
        if self.way == "shape":
            return completed[:, :-1]
        if self.way == "rows":
            return completed[1:]
        if self.way == "units":
            return 10 * completed
        if self.way == "order":
            return completed[:, ::-1]
        if self.way == "infinite":
            return np.where(np.isnan(X), np.inf, X)
        return X  # "left"


class Logged(SimpleImputer):
    """An imputer that notes its tables in a list of the class."""

    tables = []  # noqa: RUF012

    def fit(self, X, y=None):
        self.tables.append(np.array(X))
        return super().fit(X, y)

    def transform(self, X):
        self.tables.append(np.array(X))
        return super().transform(X)


# ---- scores


def test_scores_of_numbers_by_hand():
    """Observed 0, 2, 4, 6: sd sqrt(5). Observed 10, 30: sd 10. Errors -1 and 1, 3."""
    true = np.array([[0, 10], [2, 30], [4, 50], [6, 70], [8, np.nan]])
    incomplete = true.copy()
    incomplete[4, 0] = incomplete[2:4, 1] = np.nan
    completed = np.array([[0, 10], [2, 30], [4, 40], [6, 100], [7, 5.0]])
    errors = np.array([-1 / np.sqrt(5), -1, 3])
    scores = imputation_scores(true, incomplete, completed)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert scores["mae"] == pytest.approx(np.mean(np.abs(errors)))
    assert np.isnan(scores["accuracy"])
    assert list(scores) == ["rmse", "mae", "accuracy"]
    assert all(type(score) is float for score in scores.values())


def test_units_are_those_of_the_reference():
    true = np.array([[0.0], [2.0]])
    incomplete, completed = np.array([[0.0], [np.nan]]), np.array([[0.0], [5.0]])
    reference = np.array([[0.0], [6.0], [0.0], [6.0], [np.nan]])
    scores = imputation_scores(true, incomplete, completed, X_reference=reference)
    assert scores["rmse"] == pytest.approx(1)


MIXED = {"age": [20, 40, 30], "town": ["Ulm", "Bern", "Ulm"], "ok": [True, False, True]}
DATES = np.array(["2020-01-01", "2020-01-05", "2020-01-04"], dtype="datetime64[D]")


@pytest.mark.parametrize("completed_as", ["frame", "objects", "list", "pandas"])
@pytest.mark.parametrize("library", ["pandas", "polars", "array"])
def test_scores_of_mixed_tables_by_hand(library, completed_as):
    """Ages err by 5 of sd 10, dates by 1 day of sd 2; of two levels one is right."""
    frame = pd.DataFrame(MIXED | {"since": DATES.astype("datetime64[ms]")})
    frame["town"] = frame["town"].astype("category")
    incomplete = frame.astype({"age": float, "ok": object})
    incomplete.loc[2, ["age", "town", "ok", "since"]] = None
    done = frame.copy()
    done.loc[2] = [35, "Bern", True, pd.Timestamp("2020-01-05")]
    true, cells = frame, done.astype(object).to_numpy()
    if library == "polars":
        true, incomplete = pl.from_pandas(frame), pl.from_pandas(incomplete)
    elif library == "array":
        true = frame.astype(object).to_numpy()
        incomplete = incomplete.astype(object).to_numpy()
    completed = {"objects": cells, "list": cells.tolist(), "pandas": done}
    if completed_as == "frame":
        completed["frame"] = pl.from_pandas(done) if library == "polars" else done
    scores = imputation_scores(true, incomplete, completed[completed_as])
    assert scores["rmse"] == pytest.approx(0.5)
    assert scores["mae"] == pytest.approx(0.5)
    assert scores["accuracy"] == 0.5


def test_truth_values_may_come_back_as_numbers():
    true = pd.DataFrame({"a": [True, False, True]})
    incomplete = pd.DataFrame({"a": pd.array([True, None, None], dtype="boolean")})
    scores = imputation_scores(true, incomplete, np.array([[1.0], [1.0], [1.0]]))
    assert scores["accuracy"] == 0.5
    assert np.isnan(scores["rmse"])


def test_columns_of_frames_are_matched_by_name():
    true = pd.DataFrame({"a": [0.0, 2.0, 4.0], "b": [5.0, 6.0, 7.0]})
    incomplete = true.mask([[False, False], [False, False], [True, True]])
    turned = pl.from_pandas(true[["b", "a"]])
    assert imputation_scores(true, incomplete, turned)["rmse"] == 0
    assert imputation_scores(true, incomplete, turned.to_numpy())["rmse"] > 1
    with pytest.raises(ValueError, match=r"\['a', 'b'\] of X_true, got \['a', 'c'\]"):
        imputation_scores(true, incomplete, true.rename(columns={"b": "c"}))


def test_constant_columns_have_the_unit_of_what_varies():
    """Sd 0 where observed, 4 where known; a column that never varies has unit 1."""
    true = np.array([[3.0, 7.0], [3.0, 7.0], [11.0, 7.0], [11.0, 7.0]])
    incomplete = true.copy()
    incomplete[2:] = np.nan
    completed = np.array([[3.0, 7.0], [3.0, 7.0], [15.0, 9.0], [15.0, 9.0]])
    scores = imputation_scores(true, incomplete, completed)
    assert scores["mae"] == pytest.approx((1 + 2) / 2)
    incomplete[:, 0] = np.nan  # not a single cell is observed
    completed[:2, 0] = 7.0
    scores = imputation_scores(true, incomplete, completed)
    assert scores["mae"] == pytest.approx((4 * 1 + 2 * 2) / 6)


def test_a_column_that_rounding_alone_moves_is_constant():
    value = 0.1 + 0.2
    true = np.array([[0.3], [value], [0.3], [0.3]])
    incomplete, completed = true.copy(), true.copy()
    incomplete[3], completed[3] = np.nan, 1.3
    assert imputation_scores(true, incomplete, completed)["rmse"] == pytest.approx(1)


@given(
    seed=st.integers(0, 99),
    unit=st.sampled_from([-1e-9, -3.0, 1e12]),
    origin=st.sampled_from([0.0, 5.0, -1.0]),
)
@settings(max_examples=30, deadline=None)
def test_units_and_order_of_rows_change_nothing(seed, unit, origin):
    rng = np.random.default_rng(seed)
    true = table(20, 3, seed=seed)
    true[rng.random(true.shape) < 0.1] = np.nan
    incomplete = np.where(rng.random(true.shape) < 0.4, np.nan, true)
    completed = np.where(np.isnan(incomplete), rng.normal(size=true.shape), incomplete)
    tables = [true, incomplete, completed]
    scores = imputation_scores(*tables)
    if np.isnan(incomplete).all(axis=0).any():
        return
    moved = [unit * (X + origin) for X in tables]
    assert imputation_scores(*moved) == pytest.approx(scores, nan_ok=True)
    order = rng.permutation(20)
    turned = [X[order] for X in tables]
    assert imputation_scores(*turned) == pytest.approx(scores, nan_ok=True)
    perfect = np.where(np.isnan(true), 0.0, true)
    assert imputation_scores(true, incomplete, perfect)["rmse"] == 0
    assert scores["rmse"] >= scores["mae"]


def test_inputs_are_left_alone():
    true = people(20)
    incomplete = ampute(true, random_state=0)
    completed = Filled().fit_transform(incomplete)
    before = [X.copy() for X in (true, incomplete, completed)]
    imputation_scores(true, incomplete, completed)
    for now, then in zip((true, incomplete, completed), before, strict=True):
        pd.testing.assert_frame_equal(now, then)


def test_errors_of_scores_name_the_rule_and_the_column():
    true = table(6, 3)
    incomplete = hide(true, 0.4, 0)
    with pytest.raises(ValueError, match=r"the 3 columns of X_true, got 5.*indicators"):
        imputation_scores(true, incomplete, np.zeros((6, 5)))
    with pytest.raises(ValueError, match=r"X_completed must have the 6 rows .* got 4"):
        imputation_scores(true, incomplete, np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"X_incomplete must have the 6 rows"):
        imputation_scores(true, incomplete[:4], true)
    with pytest.raises(ValueError, match=r"frame or an array .* got shape \(6,\)"):
        imputation_scores(true, incomplete, np.zeros(6))
    frame = pd.DataFrame(true, columns=["a", "b", "c"])
    left = frame.assign(b=[np.nan, *true[1:, 1]])
    with pytest.raises(ValueError, match=r"missing values in the columns \['b'\]"):
        imputation_scores(frame, frame.mask(np.isnan(incomplete)), left)
    wrong = true.copy()
    wrong[np.isnan(incomplete)] = np.inf
    with pytest.raises(ValueError, match=r"Column \d of X_completed contains infinity"):
        imputation_scores(true, incomplete, wrong)
    words = true.astype(object)
    words[:] = "word"
    with pytest.raises(ValueError, match=r"Column 0 of X_completed does not hold what"):
        imputation_scores(true, np.full_like(true, np.nan), words)


# ---- the scorer


def test_scorer_is_the_score_of_a_fresh_amputation():
    X = hide(table(), 0.1, 1)
    imputer = KNNImputer().fit(X[:30])
    held_out = X[30:]
    seed = make_imputation_scorer(random_state=7).random_state
    incomplete = ampute(held_out, rate=0.4, mechanism="mar", random_state=seed)
    completed = imputer.transform(incomplete)
    scores = imputation_scores(held_out, incomplete, completed)
    for metric in ("rmse", "mae"):
        scorer = make_imputation_scorer(
            metric, rate=0.4, mechanism="mar", random_state=7
        )
        assert scorer(imputer, held_out) == -scores[metric]


def test_cells_that_are_really_missing_never_count():
    """Where they count, an imputer that puts huge values there is found out."""

    class Huge(SimpleImputer):
        def transform(self, X):
            completed = super().transform(X)
            completed[:, 0] = np.where(np.isnan(X[:, 0]), 1e9, X[:, 0])
            return completed

    X = table()
    X[:, 0] = np.where(np.arange(60) < 59, np.nan, 0.0)  # rate 0: nothing is hidden
    scorer = make_imputation_scorer(rate=[0, 0.3, 0.3, 0.3])
    assert scorer(Huge().fit(X), X) == scorer(SimpleImputer().fit(X), X) > -2


def test_scorer_is_repeatable_and_pickles():
    X = table()
    imputer = KNNImputer().fit(X)
    before = X.copy()
    scorer = make_imputation_scorer("mae", random_state=3)
    again = pickle.loads(pickle.dumps(scorer))
    assert repr(again) == repr(scorer)
    assert "metric='mae'" in repr(scorer)
    assert scorer(imputer, X) == scorer(imputer, X) == again(imputer, X)
    other = make_imputation_scorer("mae", random_state=4)
    assert other(imputer, X) != scorer(imputer, X)
    drawn = make_imputation_scorer("mae", random_state=np.random.RandomState(0))
    assert drawn(imputer, X) == drawn(imputer, X)
    np.testing.assert_array_equal(X, before)


def test_scorer_and_an_imputer_that_works_in_place():
    X = table()
    scorer = make_imputation_scorer()
    expected = scorer(KNNImputer().fit(X), X)
    assert scorer(KNNImputer(copy=False).fit(X), X) == expected


def test_grid_search_tunes_an_imputer_as_an_imputer():
    """Of one factor, many neighbours are best, and means of columns worst."""
    X = hide(table(90), 0.1, 1)
    grid = {"n_neighbors": [1, 8, 60]}
    search = GridSearchCV(KNNImputer(), grid, scoring=make_imputation_scorer(), cv=3)
    search.fit(X)
    assert search.best_params_ == {"n_neighbors": 8}
    figures = search.cv_results_["mean_test_score"]
    assert np.isfinite(figures).all()
    assert (figures < 0).all()


def test_halving_search_and_cross_val_score():
    X = hide(table(120), 0.1, 1)
    scorer = make_imputation_scorer("mae")
    search = HalvingGridSearchCV(
        KNNImputer(), {"n_neighbors": [1, 8]}, scoring=scorer, cv=2, random_state=0
    )
    assert search.fit(X).best_params_ == {"n_neighbors": 8}
    scores = [cross_val_score(i, X, scoring=scorer, cv=3) for i in BOTH.values()]
    assert (scores[1] > scores[0]).all()


def test_grid_over_imputers_and_scalers_of_a_pipeline():
    """Neighbours of unscaled columns are no neighbours; units do not bias the score."""
    X = table(90) * [1, 1, 1, 0]
    X[:, 3] = 1e3 * np.random.default_rng(3).normal(size=90)
    pipeline = make_pipeline(StandardScaler(), KNNImputer())
    grid = [
        {"standardscaler": [StandardScaler(), "passthrough"]},
        {"standardscaler": [QuantileTransformer(n_quantiles=20)]},
    ]
    search = GridSearchCV(pipeline, grid, scoring=make_imputation_scorer(), cv=3)
    scaled, unscaled, quantiles = search.fit(X).cv_results_["mean_test_score"]
    assert scaled > unscaled + 0.05
    assert quantiles > unscaled + 0.05


def test_steps_before_the_imputer_are_undone():
    X = table()
    scorer = make_imputation_scorer()
    plain = SimpleImputer().fit(X)
    scaled = make_pipeline(StandardScaler(), SimpleImputer()).fit(X)
    alone = make_pipeline(SimpleImputer()).fit(X)
    assert scorer(scaled, X) == pytest.approx(scorer(plain, X))
    assert scorer(alone, X) == scorer(plain, X)


def test_errors_behind_bent_columns_are_those_of_the_table():
    X = np.exp(2 * table())
    imputer = make_pipeline(QuantileTransformer(n_quantiles=20), KNNImputer()).fit(X)
    seed = make_imputation_scorer(random_state=0).random_state
    incomplete = ampute(X, random_state=seed)
    completed = imputer[0].inverse_transform(imputer.transform(incomplete))
    expected = imputation_scores(X, incomplete, completed)
    assert make_imputation_scorer()(imputer, X) == pytest.approx(-expected["rmse"])


def test_steps_that_cannot_be_undone_are_scored_behind_them():
    frame = people()[["height", "town", "note"]]
    # Missing levels were not seen in `fit`.
    options = {"handle_unknown": "use_encoded_value", "unknown_value": np.nan}
    encode = make_column_transformer(
        (StandardScaler(), ["height"]),
        (OrdinalEncoder(**options), ["town", "note"]),
    )
    assert not hasattr(encode, "inverse_transform")
    imputer = make_pipeline(encode, KNNImputer(copy=False)).fit(frame)
    scorer = make_imputation_scorer()
    seed = make_imputation_scorer(random_state=0).random_state
    incomplete = encode.transform(ampute(frame, random_state=seed))
    completed = KNNImputer().fit(encode.transform(frame)).transform(incomplete)
    expected = imputation_scores(encode.transform(frame), incomplete, completed)
    assert scorer(imputer, frame) == pytest.approx(-expected["rmse"])


@pytest.mark.parametrize("library", ["pandas", "polars", "objects"])
def test_search_over_a_mixed_table_by_two_metrics(library):
    X = {"pandas": people, "objects": lambda: people().astype(object).to_numpy()}
    X["polars"] = lambda: pl.from_pandas(people())
    X = X[library]()
    scoring = {"rmse": make_imputation_scorer()}
    scoring["accuracy"] = make_imputation_scorer("accuracy")
    grid = {"strategy": ["mean", "median"]}
    search = GridSearchCV(
        quick(max_epochs=0), grid, scoring=scoring, refit="rmse", cv=2
    )
    results = search.fit(X).cv_results_
    assert (results["mean_test_rmse"] < 0).all()
    assert (results["mean_test_accuracy"] > 0.6).all()
    assert hasattr(search.best_estimator_, "model_")


def test_scorer_without_cells_of_its_kind_says_so():
    X = table()
    with pytest.raises(ValueError, match="'accuracy' needs hidden categorical cells"):
        make_imputation_scorer("accuracy")(SimpleImputer().fit(X), X)
    words = people()[["note", "town"]]
    imputer = SimpleImputer(strategy="most_frequent").fit(words)
    assert make_imputation_scorer("accuracy")(imputer, words) > 0
    with pytest.raises(ValueError, match="'rmse' needs hidden numeric cells"):
        make_imputation_scorer()(imputer, words)


def test_errors_of_the_scorer():
    X = table()
    with pytest.raises(ValueError, match=r"metric must be one of .* got 'r2'"):
        make_imputation_scorer("r2")
    with pytest.raises(ValueError, match="the 4 columns of X_true, got 8"):
        make_imputation_scorer()(KNNImputer(add_indicator=True).fit(hide(X, 0.3, 0)), X)
    with pytest.raises(ValueError, match=r"columns \[0, 1, 2, 3\] were observed"):
        make_imputation_scorer()(Wrong("units").fit(X), X)


# ---- the comparison


def test_comparison_is_tidy_and_finds_the_better_imputer():
    X = hide(table(), 0.1, 1)
    before = X.copy()
    results = compare_imputers(
        BOTH, X, mechanisms=("mcar", "mar"), rates=(0.2, 0.4), cv=2, random_state=0
    )
    assert list(results.columns) == COLUMNS
    assert len(results) == 2 * 2 * 2 * 2
    assert not results.duplicated(["imputer", "mechanism", "rate", "split"]).any()
    assert results["error"].isna().all()
    assert results["accuracy"].isna().all()
    assert results["score"].isna().all()
    assert (results[["fit_time", "transform_time"]] > 0).all(axis=None)
    means = results.groupby(["mechanism", "rate", "imputer"])["rmse"].mean().unstack()
    assert (means["knn"] < means["mean"] - 0.1).all()
    groups = results.groupby(["mechanism", "rate", "split"])["rmse"]
    pd.testing.assert_series_equal(results["rank"], groups.rank(), check_names=False)
    np.testing.assert_array_equal(X, before)


def test_comparison_by_hand():
    """Same masks, same rows, units of the observed training cells."""
    X = hide(table(30), 0.1, 1)
    split = KFold(2).split(X)
    Logged.tables.clear()
    results = compare_imputers(
        {"first": Logged(), "second": Logged()}, X, cv=KFold(2), random_state=0
    )
    tables = list(Logged.tables)
    assert [len(t) for t in tables] == [15] * 8
    # Training rows of the first split are the test rows of the second.
    assert (np.isnan(tables[0]) != np.isnan(tables[5])).any()
    for s, (train, test) in enumerate(split):
        fitted, completed, *others = tables[4 * s : 4 * s + 4]
        np.testing.assert_array_equal(fitted, others[0])
        np.testing.assert_array_equal(completed, others[1])
        for part, rows in ((fitted, train), (completed, test)):
            seen = ~np.isnan(part)
            np.testing.assert_array_equal(part[seen], X[rows][seen])
            hidden = np.isnan(part) & ~np.isnan(X[rows])
            assert 0.1 < hidden.mean() < 0.45
        filled = np.where(np.isnan(completed), np.nanmean(fitted, axis=0), completed)
        scores = imputation_scores(X[test], completed, filled, X_reference=fitted)
        found = results[results["split"] == s]
        assert found["rmse"].tolist() == pytest.approx([scores["rmse"]] * 2)
        assert found["mae"].tolist() == pytest.approx([scores["mae"]] * 2)
        assert found["rank"].tolist() == [1.5, 1.5]


def test_seed_decides_the_masks_and_the_rows():
    X = table()
    one, same, other = (
        compare_imputers(MEAN, X, random_state=seed)["rmse"].tolist()
        for seed in (0, 0, 1)
    )
    assert one == same
    assert set(one).isdisjoint(other)
    assert len(set(one)) == 3
    fitted = []
    for seed in (0, 1):
        Logged.tables.clear()
        compare_imputers({"logged": Logged()}, X, rates=1e-6, random_state=seed)
        fitted.append(Logged.tables[0])
    assert (fitted[0] != fitted[1]).any()


def test_other_mechanisms_and_rates_beside_change_nothing():
    X = table()
    alone = compare_imputers(MEAN, X, mechanisms="mnar", rates=0.4, random_state=0)
    beside = compare_imputers(
        BOTH, X, mechanisms=("mar", "mnar"), rates=(0.2, 0.4), random_state=0
    )
    keep = beside.query("imputer == 'mean' and mechanism == 'mnar' and rate == 0.4")
    assert keep["rmse"].tolist() == alone["rmse"].tolist()


def test_rows_sorted_by_class_are_shuffled_and_stratified():
    X = np.repeat([[0.0, 0.1], [10.0, 10.1]], 20, axis=0)
    y = np.repeat(["a", "b"], 20)
    results = compare_imputers(
        BOTH, X, y=y, estimator=LogisticRegression(), cv=4, random_state=0
    )
    assert results["error"].isna().all()
    knn = results[results["imputer"] == "knn"]
    assert knn["rmse"].max() < 0.9
    Logged.tables.clear()
    compare_imputers(
        {"logged": Logged()},
        np.c_[X, y == "a"],
        y=y,
        estimator=LogisticRegression(),
        cv=4,
        rates=1e-6,
        random_state=0,
    )
    test_rows = [t for t in Logged.tables if len(t) == 10]
    assert [t[:, 2].sum() for t in test_rows] == [5] * 4


@pytest.mark.parametrize("library", ["pandas", "polars", "objects"])
def test_mixed_tables_and_a_downstream_score(library):
    frame = people()
    y = np.where(frame["height"] > 0, "tall", "small")
    X = {"pandas": frame, "objects": frame.astype(object).to_numpy()}
    X["polars"] = pl.from_pandas(frame)
    imputers = {"admc": quick(max_epochs=0), "knn": KNNImputer()}
    if library != "objects":
        imputers["filled"] = Filled()
    results = compare_imputers(
        imputers,
        X[library],
        y=y,
        estimator=LogisticRegression(max_iter=1000),
        cv=2,
        random_state=0,
    )
    failed = results["imputer"] == "knn"
    assert results.loc[failed, "error"].str.startswith("fit: ").all()
    assert results.loc[failed, "rank"].eq(len(imputers)).all()
    good = results[~failed]
    assert good["error"].isna().all()
    assert (good[["rmse", "mae", "accuracy"]] > 0).all(axis=None)
    admc = good[good["imputer"] == "admc"]
    assert (admc["accuracy"] > 0.7).all()
    assert (admc["score"] > 0.7).all()
    assert (admc["score"] <= 1).all()


def test_downstream_score_by_hand():
    """A column of levels is as good as its indicators; dates count."""
    X = pd.DataFrame({"level": list("abc" * 10), "day": pd.to_datetime("2020-01-01")})
    X["day"] += pd.to_timedelta(np.arange(30) % 7, unit="D")
    # Not linear in the level's place, and linear in the day.
    y = X["level"].map({"a": 1.0, "b": 9.0, "c": 2.0}) + X["day"].dt.day
    options = {"cv": 3, "rates": 1e-6, "random_state": 0, "y": y}
    results = compare_imputers(
        {"filled": Filled()}, X, estimator=LinearRegression(), **options
    )
    np.testing.assert_allclose(results["score"], 1)
    assert np.isnan(results[["rmse", "accuracy"]].to_numpy()).all()
    results = compare_imputers(
        {"filled": Filled()},
        X,
        estimator=LinearRegression(),
        scoring="neg_mean_absolute_error",
        **options,
    )
    np.testing.assert_allclose(results["score"], 0, atol=1e-8)


class Turned(Filled):
    """Columns in another order, by name."""

    def transform(self, X):
        return super().transform(X).iloc[:, ::-1]


def test_columns_in_another_order_are_the_same_downstream():
    frame, y = people(), np.arange(60.0)
    imputers = {"filled": Filled(), "turned": Turned()}
    options = {"y": y, "estimator": LinearRegression(), "random_state": 0}
    results = compare_imputers(imputers, frame, **options)
    assert results["error"].isna().all()
    filled, turned = (results[results["imputer"] == name] for name in imputers)
    for name in ("rmse", "mae", "accuracy", "score"):
        assert turned[name].tolist() == pytest.approx(filled[name].tolist())


WAYS = {
    "fit": "fit: RuntimeError: no idea",
    "transform": "transform: ZeroDivisionError: by zero",
    "shape": "transform: ValueError: X_completed must have the 4 columns",
    "rows": "transform: ValueError: X_completed must have the 30 rows",
    "units": "transform: ValueError: X_completed has other values",
    "order": "transform: ValueError: X_completed has other values",
    "infinite": "transform: ValueError: Column 0 of X_completed contains infinity",
    "left": "transform: ValueError: X_completed still has missing values",
}


def test_failures_are_recorded_and_rank_last():
    X = table() * [1, 2, 3, 4] + [0, 5, 10, 15]
    imputers = {way: Wrong(way) for way in WAYS} | BOTH
    results = compare_imputers(imputers, X, cv=2, random_state=0)
    assert len(results) == 2 * 10
    for way, message in WAYS.items():
        rows = results[results["imputer"] == way]
        assert rows["error"].str.startswith(message).all(), rows["error"].tolist()
        assert rows["rmse"].isna().all()
        assert (rows["rank"] == (3 + 10) / 2).all()
    good = results[results["imputer"].isin(list(BOTH))]
    assert good["error"].isna().all()
    assert good["rank"].max() == 2


def test_an_estimator_that_fails_leaves_the_errors_of_the_imputer():
    X, y = table(30), np.zeros(30)
    results = compare_imputers(
        MEAN, X, y=y, estimator=LogisticRegression(), random_state=0, cv=KFold(3)
    )
    assert results["error"].str.startswith("estimator: ValueError: ").all()
    assert results["rmse"].notna().all()
    assert results["score"].isna().all()


def test_pipelines_are_compared_in_the_units_of_the_table():
    X = table() * [1, 10, 100, 1000]
    encode = make_column_transformer((StandardScaler(), [0, 1, 2, 3]))
    results = compare_imputers(
        {
            "plain": SimpleImputer(),
            "scaled": make_pipeline(StandardScaler(), SimpleImputer()),
            "lost": make_pipeline(encode, SimpleImputer()),
            "behind": make_pipeline(SimpleImputer(), StandardScaler()),
        },
        X,
        cv=2,
        random_state=0,
    ).set_index("imputer")
    np.testing.assert_allclose(
        results.loc["scaled", "rmse"], results.loc["plain", "rmse"]
    )
    assert results.loc["lost", "error"].str.contains("no inverse_transform").all()
    assert results.loc["behind", "error"].str.contains("inverse_transform").all()


class InPlace(SimpleImputer):
    """An imputer that fills the tables that it gets, when fitted too, with zeros."""

    def fit(self, X, y=None):
        super().fit(X)
        X[np.isnan(X)] = 0.0
        return self

    def transform(self, X):
        X[np.isnan(X)] = 0.0
        return X


def test_imputers_that_work_in_place_are_compared_as_others():
    X = table() + 5
    imputers = {"in place": InPlace()}
    imputers["zeros"] = SimpleImputer(strategy="constant", fill_value=0.0)
    options = {"y": X[:, 0], "estimator": LinearRegression(), "random_state": 0}
    results = compare_imputers(imputers, X, **options).set_index("imputer")
    for name in ("rmse", "mae", "score"):
        found = [results.loc[imputer, name].tolist() for imputer in imputers]
        assert found[0] == found[1]
        assert np.isfinite(found[0]).all()


def test_modalities_are_removed_together():
    Logged.tables.clear()
    compare_imputers(
        {"logged": Logged()},
        table(),
        mechanisms="modality",
        modalities={"first": [0, 1], "second": [2, 3]},
        random_state=0,
    )
    for seen in Logged.tables:
        missing = np.isnan(seen)
        assert missing.any()
        np.testing.assert_array_equal(missing[:, 0], missing[:, 1])
        np.testing.assert_array_equal(missing[:, 2], missing[:, 3])


def test_tables_of_levels_alone_are_ranked_by_accuracy():
    frame = people()[["town", "note", "member"]]
    imputers = {"filled": Filled(), "admc": quick(max_epochs=0)}
    results = compare_imputers(imputers, frame, cv=2, random_state=0)
    assert results["rmse"].isna().all()
    admc = results[results["imputer"] == "admc"]
    assert (admc["rank"] == 1).all()
    assert (admc["accuracy"] > 0.7).all()


def test_progress_is_shown_where_asked(capsys):
    compare_imputers(MEAN, table(), random_state=0)
    assert capsys.readouterr().err == ""
    compare_imputers(MEAN, table(), verbose=1, random_state=0)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("metric", ["rmse", "fit_time"])
def test_results_can_be_drawn(metric):
    results = compare_imputers(
        BOTH | {"wrong": Wrong()}, table(), rates=(0.2, 0.4), random_state=0
    )
    display = ImputationDisplay.from_comparison(results, metric=metric)
    assert len(display.axes_) == 2
    assert sorted(display.data["order"]) == ["knn", "mean", "wrong"]
    if metric == "rmse":
        assert display.data["order"][0] == "knn"
    plt.close("all")


def test_parallel_runs_agree_and_share_the_cores(monkeypatch):
    """Torch in a worker has its share of the cores; here nothing changes."""
    # What this process read when it started is past; a worker would obey it.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    before = torch.get_num_threads()
    imputers = BOTH | {"wrong": Wrong("threads")}
    one, two = (
        compare_imputers(imputers, table(), cv=2, n_jobs=n_jobs, random_state=0)
        for n_jobs in (1, 2)
    )
    figures = ["imputer", "split", *FIGURES]
    pd.testing.assert_frame_equal(one[figures], two[figures])
    errors = [frame["error"].dropna().unique().tolist() for frame in (one, two)]
    share = min(7, max(1, joblib.cpu_count() // 2))
    assert errors[0] == [f"fit: RuntimeError: {before} threads"]
    assert errors[1] == [f"fit: RuntimeError: {share} threads"]
    assert torch.get_num_threads() == before


def test_other_backends_are_respected():
    with joblib.parallel_config("threading", n_jobs=2):
        Logged.tables.clear()
        results = compare_imputers({"logged": Logged()}, table(), random_state=0)
    assert len(Logged.tables) == 6  # in this process
    plain = compare_imputers({"logged": Logged()}, table(), random_state=0)
    assert results["rmse"].tolist() == plain["rmse"].tolist()


# ---- results in a file


def logged(**options):
    """Compare an imputer that notes how often it is fitted; both."""
    Logged.tables.clear()
    options = {"X": table(), "cv": 2, "random_state": 0, **options}
    results = compare_imputers(options.pop("imputers", {"NA": Logged()}), **options)
    return results, len(Logged.tables) // 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_results_are_resumed(tmp_path, suffix):
    path = tmp_path / f"results.{suffix}"
    first, n_fits = logged(path=path)
    assert n_fits == 2
    again, n_fits = logged(path=str(path))
    assert n_fits == 0
    pd.testing.assert_frame_equal(again, first)
    more, n_fits = logged(path=path, rates=(0.3, 0.5), mechanisms=("mcar", "mnar"))
    assert n_fits == 6
    keep = more.query("rate == 0.3 and mechanism == 'mcar'").reset_index(drop=True)
    pd.testing.assert_frame_equal(keep, first)
    two, n_fits = logged(path=path, imputers={"NA": Logged()} | BOTH)
    assert n_fits == 0
    assert two["imputer"].tolist() == ["NA", "mean", "knn"] * 2
    assert two["rank"].tolist() == [2.5, 2.5, 1] * 2  # NA is a mean, too
    stored = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert len(stored) == 2 + 6 + 4
    assert "fingerprint" in stored.columns
    assert list(tmp_path.iterdir()) == [path]


CHANGES = {
    "parameters": {"imputers": {"NA": Logged().set_params(strategy="median")}},
    "class": {"imputers": {"NA": SimpleImputer()}},
    "seed": {"random_state": 1},
    "data": {"X": table(seed=1)},
    "dtype": {"X": table().astype(np.float32)},
    "splits": {"cv": KFold(2)},
    "labels": {"y": np.arange(60.0), "estimator": LinearRegression()},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("error")
def test_another_configuration_is_not_reused(tmp_path, change):
    path = tmp_path / "results.csv"
    first, _ = logged(path=path)
    with pytest.warns(UserWarning, match="another configuration .* for 2 runs"):
        other, _ = logged(path=path, **CHANGES[change])
    fresh, _ = logged(**CHANGES[change])
    pd.testing.assert_frame_equal(other[FIGURES], fresh[FIGURES])
    assert len(pd.read_csv(path)) == 4
    # Neither has displaced the other.
    again, n_fits = logged(path=path)
    assert n_fits == 0
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.parametrize("change", [{"random_state": 1}, {"modalities": {"a": [0]}}])
def test_other_masks_of_the_same_rows_are_not_reused(tmp_path, change):
    options = {"path": tmp_path / "results.csv", "cv": KFold(2)}
    options |= {"mechanisms": "modality", "modalities": {"a": [0, 1]}}
    first, _ = logged(**options)
    with pytest.warns(UserWarning, match="another configuration"):
        other, n_fits = logged(**options | change)
    assert n_fits == 2
    assert (other["rmse"] != first["rmse"]).all()


def test_estimator_and_scoring_are_part_of_the_configuration(tmp_path):
    options = {"path": tmp_path / "results.csv", "y": np.arange(60.0)}
    first, n_fits = logged(estimator=LinearRegression(), **options)
    assert n_fits == 3  # with the training rows completed
    with pytest.warns(UserWarning, match="another configuration"):
        logged(estimator=LinearRegression(fit_intercept=False), **options)
    with pytest.warns(UserWarning, match="another configuration"):
        changed, _ = logged(
            estimator=LinearRegression(), scoring="neg_max_error", **options
        )
    assert (changed["score"] != first["score"]).all()


def test_mixed_frames_and_fitted_imputers_are_recognised(tmp_path):
    options = {"path": tmp_path / "results.csv", "cv": 2, "random_state": 0}
    frame = ampute(people(), rate=0.1, random_state=0)
    first = compare_imputers({"filled": Filled()}, frame, **options)
    again = compare_imputers({"filled": Filled().fit(frame)}, frame.copy(), **options)
    pd.testing.assert_frame_equal(again, first)  # seconds too
    changed = frame.copy()
    row = np.flatnonzero(frame["note"].notna())[0]
    changed.loc[row, "note"] = "perhaps"
    with pytest.warns(UserWarning, match="another configuration"):
        compare_imputers({"filled": Filled()}, changed, **options)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_failures_are_run_again(tmp_path, suffix, monkeypatch):
    options = {"cv": 2, "random_state": 0, "path": tmp_path / f"results.{suffix}"}
    imputers = BOTH | {"wrong": Wrong()}
    first = compare_imputers(imputers, table(), **options)
    assert first["error"].notna().sum() == 2
    monkeypatch.setattr(Wrong, "fit", SimpleImputer.fit)
    monkeypatch.setattr(Wrong, "transform", SimpleImputer.transform)
    second = compare_imputers(imputers, table(), **options)
    assert second["error"].isna().all()
    assert second["rmse"].notna().all()
    rows = first["imputer"] != "wrong"
    kept = ["fit_time", "transform_time", "rmse"]
    pd.testing.assert_frame_equal(second.loc[rows, kept], first.loc[rows, kept])
    third = compare_imputers(imputers, table(), **options)
    pd.testing.assert_frame_equal(third, second)


def test_a_session_that_ends_keeps_what_was_finished(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"

    def stop(self, X):
        if len(Logged.tables) == 3:
            raise KeyboardInterrupt
        return SimpleImputer.transform(self, self.tables.append(X) or X)

    with monkeypatch.context() as patch:
        patch.setattr(Logged, "transform", stop)
        with pytest.raises(KeyboardInterrupt):
            logged(path=path, cv=4)
    assert len(pd.read_csv(path)) == 1
    # The crash cut a line short.
    text = path.read_text()
    path.write_text(text + text.splitlines()[1][:-5])
    results, n_fits = logged(path=path, cv=4)
    assert n_fits == 3
    assert results["error"].isna().all()
    resumed, n_fits = logged(path=path, cv=4)
    assert n_fits == 0
    pd.testing.assert_frame_equal(resumed, results)


def test_parallel_results_are_resumed_by_name(tmp_path):
    options = {"cv": 2, "random_state": 0, "path": tmp_path / "results.csv"}
    first = compare_imputers(BOTH, table(), n_jobs=2, **options)
    pd.testing.assert_frame_equal(compare_imputers(BOTH, table(), **options), first)
    assert len(pd.read_csv(options["path"])) == 4


def test_parameters_that_cannot_be_hashed_always_run(tmp_path):
    path = tmp_path / "results.csv"
    imputers = {"knn": KNNImputer(weights=lambda distances: 1 / (1 + distances))}
    options = {"cv": 2, "random_state": 0, "path": path}
    first = compare_imputers(imputers, table(), **options)
    assert first["error"].isna().all()
    with pytest.warns(UserWarning, match="another configuration"):
        compare_imputers(imputers, table(), **options)
    assert len(pd.read_csv(path)) == 4


def test_errors_of_the_file(tmp_path):
    options = {"imputers": MEAN, "X": table(), "random_state": 0}
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet"):
        compare_imputers(path=tmp_path / "results.txt", **options)
    with pytest.raises(ValueError, match="folder that exists"):
        compare_imputers(path=tmp_path / "none" / "results.csv", **options)
    path = tmp_path / "other.csv"
    path.write_text("imputer,rmse\nmean,0.5\n")
    with pytest.raises(ValueError, match="holds no results of compare_imputers"):
        compare_imputers(path=path, **options)
    assert path.read_text() == "imputer,rmse\nmean,0.5\n"
    with pytest.raises(ValueError, match="path needs random_state"):
        compare_imputers(MEAN, table(), path=tmp_path / "results.csv")


# ---- arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"imputers": {}}, TypeError, "must be a dict, not empty, got {}"),
        ({"imputers": [SimpleImputer()]}, TypeError, "must be a dict"),
        ({"imputers": {1: SimpleImputer()}}, TypeError, "of type str, got 1"),
        ({"imputers": {"a": SimpleImputer}}, TypeError, "'a' has no fit"),
        ({"imputers": {"a": LinearRegression()}}, TypeError, "'a' has no transform"),
        ({"mechanisms": "mcarr"}, ValueError, "among .* got 'mcarr'"),
        ({"mechanisms": ()}, ValueError, r"mechanisms must be distinct, .* got \[\]"),
        ({"rates": (0.3, 0.3)}, ValueError, r"rates must be distinct, .* got \[0.3, 0"),
        ({"rates": 1.0}, ValueError, r"rates must be in \(0, 1\), got \[1.0\]"),
        ({"rates": 0}, ValueError, r"rates must be in \(0, 1\), got \[0.0\]"),
        ({"y": np.zeros(5)}, ValueError, "inconsistent numbers of samples"),
        ({"estimator": LinearRegression()}, ValueError, "estimator needs y"),
        ({"scoring": "r2"}, ValueError, "scoring needs an estimator"),
        ({"X": table(60, 1), "mechanisms": "mar"}, ValueError, "at least two columns"),
    ],
)
def test_wrong_arguments_are_no_results(options, error, message):
    options = {"imputers": MEAN, "X": table(), **options}
    with pytest.raises(error, match=message):
        compare_imputers(**options)


# ---- ranking


def results_of(scores, metric="rmse"):
    """Results of (n_runs, n_imputers) scores; imputers are called a, b, c, ..."""
    return pd.DataFrame(
        [
            {"imputer": chr(97 + k), "mechanism": "mcar", "rate": 0.3, "split": s}
            | {metric: score}
            for s, row in enumerate(scores)
            for k, score in enumerate(row)
        ]
    )


# Demsar (2006), Table 5(a): critical values of the two-tailed Nemenyi test.
NEMENYI = {0.05: (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)}
NEMENYI[0.10] = (1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920)


@pytest.mark.parametrize("alpha", NEMENYI)
def test_critical_differences_are_those_of_the_published_table(alpha):
    n_runs = 4
    for k, q in enumerate(NEMENYI[alpha], start=2):
        table = ranking(results_of(np.ones((n_runs, k))), alpha=alpha)
        (difference,) = table["critical_difference"].unique()
        scale = np.sqrt(k * (k + 1) / (6 * n_runs))
        # Its last digit is cut, not rounded.
        assert difference / scale == pytest.approx(q, abs=1.1e-3)
        assert (table["mean_rank"] == (k + 1) / 2).all()
        assert table["as_good_as_best"].all()


def test_the_example_of_demsar():
    """Section 3.2.2: 14 data sets, 4 algorithms, mean ranks given: CD is 1.25."""
    table = ranking(results_of(np.random.default_rng(0).random((14, 4))), alpha=0.1)
    # At 0.10, where q is 2.291: 2.291 * sqrt(4 * 5 / (6 * 14)) = 1.12.
    assert table["critical_difference"].iloc[0] == pytest.approx(1.12, abs=0.005)
    table = ranking(results_of(np.random.default_rng(0).random((14, 4))))
    assert table["critical_difference"].iloc[0] == pytest.approx(1.25, abs=0.005)


def test_ranks_by_hand():
    scores = [[0.5, 0.7, 0.9], [0.5, 0.5, np.nan], [0.6, 0.5, 0.9], [np.nan] * 3]
    table = ranking(results_of(scores))
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["mean_rank"].tolist() == pytest.approx([4.5 / 3, 4.5 / 3, 3])
    assert table["n_failures"].tolist() == [0, 0, 1]
    assert table["critical_difference"].iloc[0] == pytest.approx(
        2.3437 / np.sqrt(1.5), abs=1e-3
    )
    table = ranking(results_of(scores, "accuracy"), "accuracy")
    assert table.index.tolist() == ["c", "a", "b"]
    assert table["mean_rank"].tolist() == pytest.approx([5 / 3, 6.5 / 3, 6.5 / 3])


def test_ranks_tell_imputers_apart_where_runs_are_many():
    scores = np.tile([0.9, 0.5, 0.51], (30, 1))
    scores[::2, 1] += 0.02
    table = ranking(results_of(scores))
    assert table["as_good_as_best"].to_dict() == {"b": True, "c": True, "a": False}
    assert table.index[-1] == "a"


def test_ranking_of_a_comparison_agrees_with_its_rank_column():
    results = compare_imputers(
        BOTH | {"wrong": Wrong()}, table(), rates=(0.2, 0.4), random_state=0
    )
    expected = results.groupby("imputer")["rank"].mean()
    for frame in (results, pl.from_pandas(results)):
        found = ranking(frame)
        assert found["mean_rank"].to_dict() == expected.to_dict()
        assert found["n_failures"].to_dict() == {"knn": 0, "mean": 0, "wrong": 6}


def test_several_tables_are_runs_of_their_own():
    frames = [results_of([[1.0, 2.0]]).assign(table=name) for name in "xyz"]
    found = ranking(pd.concat(frames))
    assert found["mean_rank"].tolist() == [1, 2]
    assert found["critical_difference"].iloc[0] == pytest.approx(
        1.96 / np.sqrt(3), abs=1e-3
    )


def test_errors_of_the_ranking():
    good = results_of([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"metric must be one of .* got 'r2'"):
        ranking(good, "r2")
    with pytest.raises(ValueError, match=r"lacks the columns \['mae'\]"):
        ranking(good, "mae")
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\), got 5"):
        ranking(good, alpha=5)
    with pytest.raises(ValueError, match="an imputer twice"):
        ranking(pd.concat([good, good]))
    with pytest.raises(ValueError, match="every imputer in each"):
        ranking(good.iloc[:-1])
    with pytest.raises(ValueError, match="two imputers or more, got 1"):
        ranking(good[good["imputer"] == "a"])
    with pytest.raises(ValueError, match="no value of 'rmse'"):
        ranking(good.assign(rmse=np.nan))


def test_scorer_hides_other_cells_than_those_that_its_seed_took_from_the_table():
    X = ampute(table(), rate=0.5, random_state=0)
    imputer = KNNImputer().fit(X)
    assert np.isfinite(make_imputation_scorer(random_state=0)(imputer, X))
