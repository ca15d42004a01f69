"""Pictures show what they say: data of the artists, errors, nothing global touched."""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.patches import Rectangle, StepPatch
from sklearn.exceptions import NotFittedError
from sklearn.impute import KNNImputer

from admc_sklearn import ADMCImputer
from admc_sklearn._display import KINDS, ImputationDisplay
from admc_sklearn._display._data import transform_ranks
from admc_sklearn._display._figure import labels
from admc_sklearn._display._panels import bin_edges
from admc_sklearn.missingness import flux


def gaussian(n=400, d=4, rate=0.2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 1)) + rng.normal(size=(n, d))
    return np.where(rng.random(X.shape) < rate, np.nan, X)


def mixed(n=150, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": pd.array(rng.integers(18, 90, n), dtype="Int64"),
            "town": pd.Categorical(rng.choice(["Ulm", "Bern", "Rom"], n)),
            "since": np.datetime64("2020-01-01") + rng.integers(0, 900, n),
            "height": rng.normal(170, 10, n),
            "member": pd.array(rng.random(n) < 0.4, dtype="boolean"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.25)


def shares(axes):
    """Observed and imputed shares of a histogram."""
    return [a.get_data().values for a in axes.patches if isinstance(a, StepPatch)]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def numbers():
    X = gaussian()
    return ADMCImputer(max_epochs=0, random_state=0).fit(X), X


@pytest.fixture(scope="module")
def people():
    X = mixed()
    return ADMCImputer(max_epochs=2, random_state=0).fit(X), X


def comparison():
    rng = np.random.default_rng(0)
    rows = [
        {"imputer": name, "mechanism": m, "rate": r, "split": s, "rmse": base + e / 9}
        for name, base in (("poor", 2.0), ("good", 1.0), ("fair", 1.5))
        for m in ("MCAR", "MAR")
        for r in (0.5, 0.1)
        for s, e in enumerate(rng.random(3))
    ]
    frame = pd.DataFrame(rows)
    frame["accuracy"] = 1 / frame["rmse"]
    frame["fit_time"] = 2.0
    gap = (frame["imputer"] == "fair") & (frame["mechanism"] == "MAR")
    return frame.assign(rmse=frame["rmse"].mask(gap))


def test_density_shows_shares_of_observed_cells_and_draws(numbers):
    imputer, X = numbers
    display = ImputationDisplay.from_imputer(imputer, X, n_draws=3)
    assert len(display.axes_) == X.shape[1]
    for j, axes in enumerate(display.axes_):
        observed, imputed = shares(axes)
        assert observed.sum() == pytest.approx(1)
        assert imputed.sum() == pytest.approx(1)
        known, drawn = display.data["columns"][f"x{j}"]
        np.testing.assert_array_equal(known, X[~np.isnan(X[:, j]), j])
        assert len(drawn) == 3 * np.isnan(X[:, j]).sum()
        assert axes.get_title().startswith(f"x{j}")


def test_density_of_an_imputer_without_draws_shows_the_completion():
    X = gaussian(60)
    imputer = KNNImputer().fit(X)
    display = ImputationDisplay.from_imputer(imputer, X)
    _, imputed = display.data["columns"]["x1"]
    np.testing.assert_array_equal(imputed, imputer.transform(X)[np.isnan(X[:, 1]), 1])
    texts = [t.get_text() for t in display.figure_.legends[0].get_texts()]
    assert texts == ["observed", "imputed (completion)"]


@pytest.mark.parametrize("library", ["pandas", "polars", "array"])
def test_density_of_a_mixed_table(people, library):
    imputer, X = people
    n_features = X.shape[1]
    if library == "polars":
        X = pl.from_pandas(X)
        imputer = ADMCImputer(max_epochs=0).fit(X)
    elif library == "array":
        X = X.astype(object).to_numpy()
        imputer = ADMCImputer(max_epochs=0).fit(X)
    display = ImputationDisplay.from_imputer(imputer, X)
    assert len(display.axes_) == n_features
    columns = list(display.data["columns"].values())
    dtypes = [observed.dtype.kind for observed, _ in columns]
    assert dtypes == ["f", "O", "M", "f", "O"]
    town, _ = columns[1]
    widths = [p.get_width() for p in display.axes_[1].patches]
    expected = town.value_counts(normalize=True).reindex(town.cat.categories)
    assert all(isinstance(p, Rectangle) for p in display.axes_[1].patches)
    assert widths[:3] == pytest.approx(expected.to_list())
    assert sum(widths[3:]) == pytest.approx(1)


def test_density_keeps_the_columns_with_most_gaps_and_names_the_others():
    X = gaussian(80, 20)
    X[:60, 7] = np.nan
    imputer = KNNImputer().fit(X)
    display = ImputationDisplay.from_imputer(imputer, X)
    assert len(display.axes_) == 12
    assert "x7" in display.data["columns"]
    assert display.data["left_out"][0] in display.figure_.get_suptitle()
    display = ImputationDisplay.from_imputer(imputer, X, max_columns=2)
    assert len(display.axes_) == 2


def test_density_ignores_indicators_and_dropped_columns():
    X = gaussian(60)
    X[:, 1] = np.nan
    imputer = ADMCImputer(max_epochs=0, add_indicator=True, keep_empty_features=False)
    with pytest.warns(UserWarning, match="dropped"):
        imputer.fit(X)
    display = ImputationDisplay.from_imputer(imputer, X, n_draws=1)
    columns = display.data["columns"]
    assert list(columns) == ["x0", "x2", "x3"]
    drawn = imputer.sample(X, 1, np.random.RandomState(0).randint(2**31 - 1))[0]
    np.testing.assert_array_equal(columns["x3"][1], drawn[np.isnan(X[:, 3]), 2])


def test_bins_cover_whole_numbers_and_outliers():
    np.testing.assert_array_equal(
        bin_edges(np.array([1.0, 2, 2]), np.ones(2)), [0.5, 1.5, 2.5]
    )
    edges = bin_edges(np.append(np.linspace(0, 1, 1000), 1e6), np.empty(0))
    assert edges[-1] < 2
    assert len(bin_edges(np.full(5, 0.3), np.full(2, 0.3))) == 2


def test_calibration_of_gaussian_data_is_near_nominal(numbers):
    imputer, X = numbers
    display = ImputationDisplay.from_imputer(imputer, X, kind="calibration")
    pooled = [
        line for line in display.axes_[0].lines if "hidden cells" in line.get_label()
    ]
    nominal, coverage = pooled[0].get_data()
    assert display.data["n_cells"] > 150
    np.testing.assert_allclose(coverage, nominal, atol=0.1)
    assert set(display.data["columns"]) == {"x0", "x1", "x2", "x3"}


def test_calibration_sees_intervals_that_are_too_narrow(numbers):
    class Sure(KNNImputer):
        def sample(self, X, n_draws, random_state):
            noise = np.random.RandomState(random_state).normal(size=(n_draws, *X.shape))
            return self.transform(X) + 0.1 * np.isnan(X) * noise

    X = numbers[1]
    display = ImputationDisplay.from_imputer(Sure().fit(X), X, kind="calibration")
    assert display.data["pooled"][10] < 0.3


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_calibration_of_a_mixed_frame_counts_numbers_and_dates(people, library):
    imputer, X = people
    if library == "polars":
        X = pl.from_pandas(X)
        imputer = ADMCImputer(max_epochs=0).fit(X)
    display = ImputationDisplay.from_imputer(imputer, X, kind="calibration", n_draws=9)
    assert set(display.data["columns"]) <= {"age", "since", "height"}
    assert 30 < display.data["n_cells"] < 110


def test_calibration_hides_cells_behind_the_imputers_own_marker():
    X = np.nan_to_num(gaussian(100), nan=-99.0)
    imputer = ADMCImputer(max_epochs=0, missing_values=-99).fit(X)
    display = ImputationDisplay.from_imputer(imputer, X, kind="calibration")
    assert np.abs(display.data["pooled"] - display.data["nominal"]).mean() < 0.15


@pytest.mark.parametrize("n_draws", [1, 9, 50])
def test_ranks_are_uniform_for_point_masses_and_few_draws(n_draws):
    rng = np.random.RandomState(0)
    draws = rng.poisson(0.7, size=(n_draws + 1, 20000)).astype(float)
    ranks = transform_ranks(draws[0], draws[1:], 0.0, rng)
    counts, _ = np.histogram(ranks, 10, range=(0, 1))
    np.testing.assert_allclose(counts / len(ranks), 0.1, atol=0.01)


def test_scatter_groups_rows_by_what_was_missing(numbers):
    imputer, X = numbers
    display = ImputationDisplay.from_imputer(
        imputer, X, kind="scatter", columns=["x2", 0]
    )
    x, y = np.isnan(X[:, 2]), np.isnan(X[:, 0])
    groups = [c for c in display.axes_[0].collections if isinstance(c, PathCollection)]
    sizes = [len(group.get_offsets()) for group in groups]
    assert sizes == [(~x & ~y).sum(), (x & ~y).sum(), (~x & y).sum(), (x & y).sum()]
    both = groups[0].get_offsets()
    np.testing.assert_array_equal(both, X[~x & ~y][:, [2, 0]])


def test_scatter_of_dates(people):
    imputer, X = people
    display = ImputationDisplay.from_imputer(
        imputer, X, kind="scatter", columns=("since", "age")
    )
    assert display.axes_[0].get_xlabel() == "since"


def test_pattern_counts_rows():
    X = np.zeros((10, 3))
    X[:6, 1] = X[6:9, 0] = X[6:9, 2] = np.nan
    imputer = KNNImputer().fit(X)
    display = ImputationDisplay.from_imputer(imputer, X, kind="pattern")
    assert display.data["counts"].tolist() == [6, 3, 1]
    assert display.data["patterns"].tolist() == [
        [False, True, False],
        [True, False, True],
        [False, False, False],
    ]
    top, cells, right = display.axes_
    assert [bar.get_height() for bar in top.patches] == pytest.approx([0.3, 0.6, 0.3])
    assert [bar.get_width() for bar in right.patches] == [6, 3, 1]
    (mesh,) = (c for c in cells.collections if isinstance(c, QuadMesh))
    dark = np.asarray(mesh.get_array()).reshape(3, 3) > 0.5
    np.testing.assert_array_equal(dark, display.data["patterns"])


def test_pattern_gathers_rare_patterns_and_thins_labels():
    X = gaussian(3000, 100)
    imputer = KNNImputer().fit(X[:5])
    display = ImputationDisplay.from_imputer(imputer, X, kind="pattern")
    cells = display.axes_[1]
    assert cells.get_yticklabels()[-1].get_text() == "2980 others"
    assert len(cells.get_xticklabels()) == 50


def test_training_marks_the_anchor_and_the_kept_epoch(people):
    imputer, X = people
    for display in (
        ImputationDisplay.from_imputer(imputer, kind="training"),
        ImputationDisplay.from_imputer(imputer, X, kind="training"),
    ):
        curve, anchor, kept = display.axes_[0].lines
        history = imputer.history_
        np.testing.assert_array_equal(curve.get_ydata(), history["valid_rmse"])
        assert set(anchor.get_ydata()) == {history["valid_rmse"][0]}
        assert kept.get_xdata() == [imputer.n_epochs_]


def test_comparison_sorts_imputers_and_says_where_none_has_a_value():
    display = ImputationDisplay.from_comparison(comparison())
    assert display.data["order"] == ["good", "fair", "poor"]
    titles = [axes.get_title() for axes in display.axes_]
    assert titles == ["MCAR, 10 %", "MCAR, 50 %", "MAR, 10 %", "MAR, 50 %"]
    texts = [[t.get_text() for t in axes.texts] for axes in display.axes_]
    assert [text[1] == "none" for text in texts] == [False, False, True, True]
    full = [
        line for line in display.axes_[0].lines if line.get_markerfacecolor() == "black"
    ]
    assert [line.get_ydata()[0] for line in full] == [0]
    dots = display.axes_[0].lines[0].get_xdata()
    assert len(dots) == 3


@pytest.mark.parametrize("metric", ["accuracy", "fit_time"])
def test_comparison_of_other_metrics_and_of_polars(metric):
    frame = pl.from_pandas(comparison())
    display = ImputationDisplay.from_comparison(frame, metric=metric)
    if metric == "accuracy":
        assert display.data["order"] == ["good", "fair", "poor"]
    else:
        assert display.axes_[0].get_xscale() == "log"


def test_comparison_has_panels_for_several_tables():
    frame = pd.concat([comparison().assign(table=name) for name in "ab"])
    display = ImputationDisplay.from_comparison(frame)
    assert len(display.axes_) == 8
    assert display.axes_[4].get_title() == "b: MCAR, 10 %"


@pytest.fixture(scope="module")
def modal_imputer(blocks_alone):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(150, 3))
    X = np.hstack([hidden @ rng.normal(size=(3, 6)) for _ in range(2)] + [hidden])
    X = X + 0.1 * rng.normal(size=X.shape)
    modalities = {"speech": slice(0, 6), "text": slice(6, 12)}
    return ADMCImputer(modalities=modalities, max_epochs=1, random_state=0).fit(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_draws_in_the_place_of_given_axes(people, modal_imputer, kind, layout):
    imputer, X = people
    imputer = modal_imputer if kind == "modalities" else imputer
    figure, (_, ax) = plt.subplots(1, 2, layout=layout)
    columns = ("age", "height") if kind == "scatter" else None
    display = ImputationDisplay.from_imputer(
        imputer, X, kind=kind, columns=columns, n_draws=2, ax=ax
    )
    figure.canvas.draw()
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]
    again = display.plot()
    assert again is display
    assert display.figure_ is not figure


def test_touches_nothing_global(people, modal_imputer):
    imputer, X = people
    before, parameters = X.copy(), dict(matplotlib.rcParams)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for kind in KINDS:
        columns = ("age", "height") if kind == "scatter" else None
        drawn = modal_imputer if kind == "modalities" else imputer
        ImputationDisplay.from_imputer(drawn, X, kind=kind, columns=columns, n_draws=2)
    pd.testing.assert_frame_equal(X, before)
    assert dict(matplotlib.rcParams) == parameters
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("kind", ["density", "calibration"])
def test_a_repeated_call_gives_the_same_picture(kind):
    X = gaussian(1100, 2)
    before = X.copy()
    imputer = ADMCImputer(max_epochs=0, random_state=0).fit(X[:200])
    one, two = (
        ImputationDisplay.from_imputer(imputer, X, kind=kind, n_draws=2).data
        for _ in range(2)
    )
    for name, values in one["columns"].items():
        np.testing.assert_array_equal(values[1], two["columns"][name][1])
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "violin"}, ValueError, "kind must be one of"),
        ({"columns": ["x9"]}, ValueError, "There is no column 'x9'"),
        ({"columns": [9]}, ValueError, "There is no column 9"),
        ({"kind": "scatter"}, ValueError, "columns="),
        ({"kind": "scatter", "columns": [0, 1]}, TypeError, "no `sample`"),
        ({"kind": "calibration"}, TypeError, "KNNImputer has no `sample`"),
        ({"kind": "training"}, TypeError, "history_"),
        ({"kind": "calibration", "hidden_rate": 1}, ValueError, "hidden_rate"),
        ({"max_columns": 0}, ValueError, "max_columns"),
    ],
)
def test_errors_say_what_is_wrong(options, error, message):
    X = gaussian(40)
    with pytest.raises(error, match=message):
        ImputationDisplay.from_imputer(KNNImputer().fit(X), X, **options)


def test_errors_of_tables():
    X = gaussian(40)
    imputer = KNNImputer().fit(X)
    with pytest.raises(NotFittedError):
        ImputationDisplay.from_imputer(KNNImputer(), X)
    with pytest.raises(ValueError, match="X is needed"):
        ImputationDisplay.from_imputer(imputer)
    with pytest.raises(ValueError, match="4 columns"):
        ImputationDisplay.from_imputer(imputer, X[:, :2])
    with pytest.raises(ValueError, match="no missing cell"):
        ImputationDisplay.from_imputer(imputer, np.zeros((3, 4)))
    frame = comparison()
    with pytest.raises(ValueError, match=r"lacks the columns \['rate'\]"):
        ImputationDisplay.from_comparison(frame.drop(columns="rate"))
    with pytest.raises(ValueError, match="metric must be one of"):
        ImputationDisplay.from_comparison(frame, metric="r2")
    with pytest.raises(ValueError, match="no value of 'rmse'"):
        ImputationDisplay.from_comparison(frame.assign(rmse=np.nan))


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"admc_sklearn\[plot\]"):
        ImputationDisplay.from_comparison(comparison())


def test_modalities_show_what_they_tell_of_each_other(modal_imputer):
    display = ImputationDisplay.from_imputer(modal_imputer, kind="modalities")
    (panel,) = display.axes_
    shown = {text.get_text() for text in panel.texts}
    share = modal_imputer.dependence_.loc["text", "speech"]
    assert f"{100 * share:.0f} %" in shown
    assert share > 0.8
    assert [t.get_text() for t in panel.get_yticklabels()][:2] == ["speech", "text"]


def test_training_beside_cells_shows_that_of_the_modalities(modal_imputer):
    display = ImputationDisplay.from_imputer(modal_imputer, kind="training")
    assert display.data["history"]["epoch"].is_unique
    assert set(display.data["history"]["part"]) == {"modalities"}


def test_modalities_without_blocks_are_an_error():
    imputer = ADMCImputer(max_epochs=0).fit(np.arange(30.0).reshape(10, 3))
    with pytest.raises(TypeError, match="block"):
        ImputationDisplay.from_imputer(imputer, kind="modalities")


def test_long_names_keep_both_ends_and_are_told_apart():
    long = [f"household_income_{way}_tax_weighted_mean" for way in ("before", "after")]
    found = labels([*long, "short", "x" * 30, "x" * 40, "x" * 30], 20)
    assert len(set(found)) == len(found)
    assert max(map(len, found)) <= 20
    assert found[2] == "short"
    for name, label in zip(long, found, strict=False):
        assert label.startswith(name[:3])
        assert label.endswith(name[-3:])
    assert "before" in found[0]
    assert "after" in found[1]
    assert labels(["a" * 25 + "b"]) == ["a" * 10 + "…" + "a" * 8 + "b"]


def test_the_other_patterns_have_a_bar_of_their_own():
    X = gaussian(300, 9, 0.4)
    imputer = KNNImputer().fit(X[:5])
    display = ImputationDisplay.from_imputer(imputer, X, kind="pattern")
    _, cells, right = display.axes_
    widths = [bar.get_width() for bar in right.patches]
    assert len(widths) == len(cells.get_yticklabels()) == 21
    assert widths[-1] == display.data["counts"][20:].sum()
    assert sum(widths) == 300
    assert right.get_xlim()[1] < widths[-1]  # it is cut, so as not to dwarf the others


def test_flux_places_every_column_and_names_it():
    X = mixed()
    X[["age", "town"]] = X[["age", "town"]].ffill().bfill()
    display = ImputationDisplay.from_table(X)
    (ax,) = display.axes_
    points = next(line for line in ax.lines if line.get_marker() == "o")
    expected = flux(X)
    np.testing.assert_allclose(
        np.column_stack(points.get_data()), expected[["influx", "outflux"]]
    )
    shown = " ".join(text.get_text() for text in ax.texts)
    assert all(name in shown for name in X.columns)
    assert "age, town" in shown  # they share a place
    assert display.data["flux"].equals(expected)
    axes = plt.figure().add_subplot()
    assert ImputationDisplay.from_table(X.to_numpy(object), ax=axes).axes_[0] is axes
    wide = gaussian(d=9, rate=0)
    wide[:50, 8] = np.nan
    (ax,) = ImputationDisplay.from_table(wide).axes_
    assert {t.get_text() for t in ax.texts} == {"0, 1, 2 and 5 more", "8"}


@pytest.mark.parametrize(("fill", "word"), [(1.0, "No"), (np.nan, "Every")])
def test_flux_of_a_table_without_gaps_or_without_cells_is_refused(fill, word):
    with pytest.raises(ValueError, match=f"{word} cell is missing"):
        ImputationDisplay.from_table(np.full((5, 2), fill))
