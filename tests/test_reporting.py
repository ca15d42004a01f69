"""New tables compared with that of fit, and the imputer's HTML representation."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn import config_context
from sklearn.exceptions import NotFittedError

from admc_sklearn import ADMCImputer
from tests.conftest import FIRST_SEED, gaussian_table, hide, quick


def rows(n, seed):
    rng = np.random.default_rng(FIRST_SEED + seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n).astype(float),
            "income": rng.lognormal(size=n),
            "town": pd.Categorical(rng.choice(["Bern", "Rom", "Ulm"], n)),
            "since": np.datetime64("2020-01-01") + rng.integers(0, 900, n),
            "member": pd.array(rng.random(n) < 0.4, dtype="boolean"),
        }
    )
    frame["income"] = frame["income"].mask(rng.random(n) < 0.2)
    return frame


@pytest.fixture(scope="module")
def imputer():
    return ADMCImputer(max_epochs=0, random_state=0).fit(rows(300, 0))


def compared(imputer, X, **options):
    """Differences, and the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = imputer.compare_new_data(X, **options)
    return found, [str(w.message) for w in caught]


def test_nothing_differs_in_rows_of_the_same_distribution(imputer):
    for n in (1, 20, 300):
        for seed in range(1, 9):
            found, texts = compared(imputer, rows(n, seed), alpha=1e-5)
            assert not len(found), found
            assert not texts
    assert list(found.columns) == [
        "column", "difference", "in_fit", "in_new", "share"
    ]  # fmt: skip


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_every_difference_has_a_row_and_the_warning_names_it(imputer, library):
    X = rows(200, 1)
    X.loc[:9, "age"] = 130.0
    X["income"] = X["income"].mask(np.arange(200) % 2 == 0)
    X["town"] = X["town"].astype(str).where(np.arange(200) > 19, "Oslo")
    X["since"] = X["since"] + pd.Timedelta(days=5000)
    X = X.drop(columns="member").assign(height=1.0)
    X = X[X.columns[::-1]]
    found, texts = compared(imputer, X if library == "pandas" else pl.from_pandas(X))
    assert found[["column", "difference"]].to_numpy().tolist() == [
        ["age", "range"],
        ["income", "missing rate"],
        ["town", "levels"],
        ["since", "range"],
        ["member", "column"],
        ["height", "column"],
    ]
    by = found.set_index(["column", "difference"])
    age = by.loc[("age", "range")]
    assert age["in_fit"] == (18.0, 89.0)
    assert age["in_new"][1] == 130.0
    assert age["share"] == pytest.approx(0.05)
    income = by.loc[("income", "missing rate")]
    assert income["in_fit"] == rows(300, 0)["income"].isna().mean()
    assert income["in_new"] == X["income"].isna().mean()
    assert by.loc[("town", "levels"), "in_fit"] == ["Bern", "Rom", "Ulm"]
    assert by.loc[("town", "levels"), "in_new"] == ["Oslo"]
    assert by.loc[("town", "levels"), "share"] == pytest.approx(0.1)
    days = pd.to_datetime(list(by.loc[("since", "range"), "in_fit"]))
    assert (days == [rows(300, 0)["since"].min(), rows(300, 0)["since"].max()]).all()
    assert by.loc[("member", "column"), "in_new"] == "absent"
    assert by.loc[("height", "column"), "in_new"] == "present"
    (text,) = texts
    assert "'age' leaves the range 18.0 to 89.0" in text
    assert "'town' has unknown levels ('Oslo')" in text
    assert "'member' is absent" in text
    assert "'height' is present, and was not there in fit" in text


def test_other_kinds_of_values_are_named_and_not_refused(imputer):
    X = rows(50, 1).assign(age="old", town=1.5, since=3.0, member="yes")
    found, _ = compared(imputer, X)
    by = found.set_index("column")
    assert by.loc["age", "difference"] == "kind"
    assert by.loc["age", "in_fit"] == "number (float64)"
    assert by.loc["age", "in_new"].startswith("category (")
    assert by.loc["town", "in_new"] == "number (float64)"
    assert by.loc["since", "in_fit"].startswith("time (datetime64")
    assert by.loc["member", "difference"] == "levels"
    spans = rows(50, 1)
    spans["since"] = spans["since"] - spans["since"].min()
    found, _ = compared(imputer, spans)
    assert found["difference"].to_list() == ["kind"]


def test_arrays_are_compared_by_position_and_a_single_far_value_counts():
    X = hide(gaussian_table(200, 3, 0)[0], 0.1, 1)
    X[:, 2] = np.where(np.isnan(X[:, 2]), 0.0, X[:, 2])
    imputer = ADMCImputer(max_epochs=0, random_state=0).fit(X)
    new = np.column_stack([X[:40], np.zeros(40)])
    new[0, 1], new[1, 2] = 1000.0, np.nan
    found, texts = compared(imputer, new)
    ours = found[found["difference"] != "missing rate"]
    assert ours["column"].to_list() == ["x1", "x3"]
    lost = found.set_index(["column", "difference"]).loc[("x2", "missing rate")]
    assert lost["in_fit"] == 0  # complete in fit, so that one cell counts
    assert lost["in_new"] == 1 / 40
    assert len(texts) == 1
    found, _ = compared(imputer, new[:, :2])
    assert found["column"].to_list()[-1] == "x2"
    edge = X.copy()
    edge[0, 0] = np.nanmax(X[:, 0]) + 0.01  # one of 200 may well be the highest
    assert not len(compared(imputer, edge)[0])
    assert compared(imputer, edge, alpha=1)[0]["difference"].to_list() == ["range"]


def test_the_statistics_of_fit_are_in_pickles_and_files(imputer, tmp_path):
    X = rows(200, 1).assign(income=np.nan)
    expected, _ = compared(imputer, X)
    imputer.save(tmp_path / "imputer.safetensors")
    loaded = ADMCImputer.load(tmp_path / "imputer.safetensors")
    for other in (pickle.loads(pickle.dumps(imputer)), loaded):
        pd.testing.assert_frame_equal(compared(other, X)[0], expected)
    # Files of the first releases lack them.
    del loaded._codec.n_rows_, loaded._codec.missing_rates_
    loaded.save(tmp_path / "old.safetensors")
    old = ADMCImputer.load(tmp_path / "old.safetensors")
    X = rows(300, 0).assign(income=np.nan)
    assert not len(compared(old, X)[0])
    X.loc[0, "age"] = 90.0
    assert compared(old, X)[0]["difference"].to_list() == ["range"]
    assert "Mechanisms" in old._repr_html_()


def test_bad_input(imputer):
    with pytest.raises(NotFittedError):
        ADMCImputer().compare_new_data(rows(5, 0))
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\], got 0"):
        imputer.compare_new_data(rows(5, 0), alpha=0)
    with pytest.raises(ValueError, match="X must be a frame or an array of shape"):
        imputer.compare_new_data(np.zeros(5))


def test_html_shows_mechanisms_missing_rates_and_validation_error():
    X = rows(150, 0).rename(columns={"income": "<b>income</b>"})
    imputer = quick(max_epochs=2)
    plain = imputer._repr_html_()
    assert "What fit found" not in plain
    html = imputer.fit(X)._repr_html_()
    assert "sk-top-container" in html  # scikit-learn's own diagram
    assert "&lt;b&gt;income&lt;/b&gt;" in html
    report = html[html.index("What fit found") :]
    assert "<b>" not in report
    for name in imputer.memory_usage_.index:
        assert name.replace("_", " ") in report
    history = imputer.history_.set_index("epoch")["valid_rmse"]
    assert f"{history[imputer.n_epochs_]:.4f} at epoch" in report
    assert f"{imputer.model_.held_out_errors[0]:.4f}" in report
    assert f"{100 * X['<b>income</b>'].isna().mean():.1f} %" in report
    assert "150" in report
    bundle = imputer._repr_mimebundle_()
    assert bundle["text/html"].count("What fit found") == 1
    with config_context(display="text"):
        assert "text/html" not in imputer._repr_mimebundle_()
        assert not hasattr(imputer, "_repr_html_")


def test_html_of_imputers_without_a_network():
    X = pd.DataFrame({"a": [np.nan] * 8, "b": [np.nan] * 8})
    with pytest.warns(UserWarning, match="without a single observed value"):
        imputer = ADMCImputer(max_epochs=0).fit(X)
    assert "no column had an observed cell" in imputer._repr_html_()
    wide = np.full((30, 30), 1.0) * np.arange(30)[:, None]
    wide[0] = np.nan
    report = ADMCImputer(max_epochs=0).fit(wide)._repr_html_()
    assert "and 10 more columns" in report
