"""Saved imputers complete as they did; what is in a file, and what is not."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_selector
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from admc_sklearn import ADMCImputer, CrossModalFeatures
from admc_sklearn._storage.container import BadFile, read, write

from .conftest import gaussian_table, hide, lightly, quick

HERE = Path(__file__).parent


def mixed_frame(n=120):
    rng = np.random.default_rng(5)
    a = rng.normal(size=n)
    days = pd.to_timedelta(rng.integers(0, 900, n), "D")
    frame = pd.DataFrame(
        {
            "number": a,
            "twice": 2 * a,
            "count": rng.poisson(3, n),
            "level": pd.Categorical(np.where(a > 0, "x", "y"), ordered=True),
            "word": np.where(rng.random(n) < 0.5, "u", "v"),
            "flag": a > 0.3,
            "day": pd.Timestamp("2020-01-01", tz="Europe/Berlin") + days,
            "span": days,
            "whole": pd.array(rng.integers(0, 9, n), dtype="Int64"),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < 0.2)
    return frame.assign(empty=np.nan)


def blocks(n=200):
    X = gaussian_table(n, 14, 3)[0]
    rng = np.random.default_rng(1)
    X[rng.random(n) < 0.3, :6] = np.nan
    X[rng.random(n) < 0.3, 6:12] = np.nan
    return X


BLOCKS = {"first": list(range(6)), "second": list(range(6, 12))}


def repeated():
    """Rows that repeat, so that donors are kept, in a table of two patterns more."""
    X = hide(np.repeat(gaussian_table(120, 5, 4)[0], 3, axis=0), 0.2, 5)
    X[:100, :2] = np.nan
    X[:100, 2:] = np.nan_to_num(X[:100, 2:])
    return X


KINDS = {
    "mixed": lambda: (
        quick(self_masking=True, n_bootstraps=2, add_indicator=True, strategy="median"),
        mixed_frame(),
    ),
    "polars": lambda: (
        quick(),
        pl.DataFrame(
            {
                "a": [1.5, None, 2.5, 3.0] * 20,
                "level": pl.Series(
                    ["x", "y", None, "x"] * 20, dtype=pl.Enum(["x", "y"])
                ),
                "when": pl.Series([1, None, 3, 4] * 20).cast(pl.Datetime("ms", "UTC")),
            }
        ),
    ),
    "anchor": lambda: (
        ADMCImputer(max_epochs=0),
        hide(gaussian_table(60, 3, 0)[0], 0.2, 1),
    ),
    "nothing": lambda: (quick(missing_values=[-1, np.nan]), np.full((4, 2), np.nan)),
    "words": lambda: (
        quick(keep_empty_features=False),
        pd.DataFrame({"x": ["a", "b", None] * 20, "y": [1.0, np.nan, 3] * 20}),
    ),
    "blocks": lambda: (quick(modalities=BLOCKS), blocks()),
}


def same(a, b):
    if isinstance(a, list):
        return all(same(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, pl.DataFrame):
        return a.equals(b)
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
        return True
    np.testing.assert_array_equal(a, b)
    return True


@pytest.fixture(scope="module")
def with_donors():
    with lightly():
        imputer = ADMCImputer(max_epochs=3, random_state=0).fit(repeated())
    assert imputer.model_.donors is not None
    return imputer


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_imputer_completes_bit_for_bit(kind, tmp_path):
    imputer, X = KINDS[kind]()
    if isinstance(X, pd.DataFrame):
        imputer.set_output(transform="pandas")
    imputer.fit(X)
    about = imputer.save(tmp_path / "model")
    assert about["bytes"] == (tmp_path / "model").stat().st_size
    again = ADMCImputer.load(tmp_path / "model")
    assert repr(again.get_params()) == repr(imputer.get_params())
    assert vars(again).keys() >= {
        k for k in vars(imputer) if k[-1] == "_" and k[0] != "_"
    }
    assert same(imputer.transform(X), again.transform(X))
    assert same(imputer.sample(X, 2), again.sample(X, 2))
    assert same(imputer.predict_quantiles(X), again.predict_quantiles(X))
    assert list(imputer.get_feature_names_out()) == list(again.get_feature_names_out())
    pd.testing.assert_frame_equal(imputer.history_, again.history_)
    # Saved anew, it is the same file.
    again.save(tmp_path / "anew")
    (arrays, content), first = read(tmp_path / "anew"), read(tmp_path / "model")
    assert content == first[1]
    assert arrays.keys() == first[0].keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, first[0][key])


def test_a_loaded_imputer_trains_on(tmp_path):
    X = hide(gaussian_table(80, 4, 0)[0], 0.2, 1)
    imputer = quick(warm_start=True).fit(X)
    imputer.save(tmp_path / "model")
    again = ADMCImputer.load(tmp_path / "model")
    again._settings = imputer._settings
    assert same(imputer.fit(X).transform(X), again.fit(X).transform(X))


def test_corrections_by_rows_are_saved(with_donors, tmp_path):
    with_donors.save(tmp_path / "model")
    again = ADMCImputer.load(tmp_path / "model", device="cpu")
    assert again.model_.donors is not None
    assert same(with_donors.transform(repeated()), again.transform(repeated()))
    assert same(with_donors.sample(repeated(), 2), again.sample(repeated(), 2))


def test_cross_modal_features_are_saved(tmp_path):
    features = CrossModalFeatures(quick(modalities=BLOCKS), cv=2).fit(blocks())
    features.save(tmp_path / "model")
    again = CrossModalFeatures.load(tmp_path / "model")
    assert same(features.transform(blocks()), again.transform(blocks()))
    with pytest.raises(ValueError, match=r"CrossModalFeatures, not ADMCImputer"):
        ADMCImputer.load(tmp_path / "model")


def rows_in(data, rows):
    """How many rows, (n, d), have their bytes in the data in any usual form."""
    forms = [rows.astype(t) for t in ("<f4", "<f8")]
    return sum(form[k].tobytes() in data for form in forms for k in range(len(rows)))


def test_without_rows_no_byte_of_a_row_is_in_the_file(with_donors, tmp_path):
    donors = with_donors.model_.donors
    stored = [donors.values.numpy(), donors.scaled_values.numpy()]
    if with_donors.model_.patterns is not None:
        for pattern in with_donors.model_.patterns.patterns:
            stored += [r.points.numpy() for r in pattern.regressions]
    about = with_donors.save(tmp_path / "model")
    assert about["training_rows"] == with_donors.memory_usage_["rows"].max() > 300
    data = (tmp_path / "model").read_bytes()
    assert all(rows_in(data, rows) >= len(rows) for rows in stored)
    about = with_donors.save(tmp_path / "model", include_rows=False)
    data = (tmp_path / "model").read_bytes()
    standardised = (repeated() - np.nanmean(repeated(), 0)) / np.nanstd(repeated(), 0)
    complete = ~np.isnan(standardised).any(1)
    stored += [repeated()[complete], standardised[complete]]
    assert [rows_in(data, rows) for rows in stored] == [0] * len(stored)
    assert about["training_rows"] == 0
    assert about["held_out_error"] > about["error_with_rows"] > 0
    again = ADMCImputer.load(tmp_path / "model")
    assert not again.memory_usage_["rows"].any()
    found = again.transform(repeated())
    assert np.isfinite(found).all()
    assert not np.array_equal(found, with_donors.transform(repeated()))
    assert with_donors.model_.donors is donors  # the imputer itself is as it was


def test_blocks_without_rows_are_completed_by_straight_lines(tmp_path):
    X = blocks(300)
    imputer = ADMCImputer(modalities=BLOCKS, max_epochs=0, random_state=0)
    with lightly():
        imputer._settings = replace(
            imputer._settings,
            partition=replace(imputer._settings.partition, max_cell_columns=0),
        )
        imputer.fit(X)
    landmarks = [m.landmarks.numpy() for m in imputer.model_.blocks.features.maps]
    about = imputer.save(tmp_path / "whole")
    assert about["training_rows"] >= max(map(len, landmarks))
    data = (tmp_path / "whole").read_bytes()
    assert all(rows_in(data, rows) == len(rows) for rows in landmarks)
    about = imputer.save(tmp_path / "model", include_rows=False)
    data = (tmp_path / "model").read_bytes()
    assert [rows_in(data, rows) for rows in landmarks] == [0] * len(landmarks)
    assert np.isfinite([about["held_out_error"], about["error_with_rows"]]).all()
    again = ADMCImputer.load(tmp_path / "model")
    # Linear as the table is, straight lines complete it nearly as well.
    truth = blocks(300)
    complete = ~np.isnan(truth).any(1)
    lost = truth[complete].copy()
    lost[:, :6] = np.nan
    errors = [
        np.sqrt(np.mean((i.transform(lost) - truth[complete])[:, :6] ** 2))
        for i in (imputer, again)
    ]
    assert errors[1] < 1.2 * errors[0]
    assert again.attention(lost).shape == (3, 3)


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({"modalities": {"a": make_column_selector("x")}}, r"modalities\['a'\]"),
        ({"categorical_features": make_column_selector("x1")}, "categorical_features"),
    ],
)
def test_functions_are_refused_with_what_to_do(parameters, place, tmp_path):
    frame = pd.DataFrame(
        hide(gaussian_table(40, 3, 0)[0].round(), 0.2, 1), columns=["x1", "x2", "y"]
    )
    imputer = ADMCImputer(max_epochs=0, **parameters).fit(frame)
    with pytest.raises(
        ValueError, match=place + r" is a function.*set_params"
    ) as caught:
        imputer.save(tmp_path / "model")
    # The advice works.
    advice = str(caught.value).split("set_params(")[1].split("), the columns")[0]
    imputer.set_params(**eval(f"dict({advice})")).save(tmp_path / "model")
    again = ADMCImputer.load(tmp_path / "model")
    assert same(imputer.transform(frame), again.transform(frame))


def test_encoders_are_refused_and_pickled(tmp_path):
    imputer = quick(modalities=BLOCKS, encoders={"first": PCA(2)}).fit(blocks())
    with pytest.raises(ValueError, match=r"encoders of ADMCImputer .*skops"):
        imputer.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    again = pickle.loads(pickle.dumps(imputer))
    assert same(imputer.transform(blocks()), again.transform(blocks()))


def test_an_imputer_that_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        ADMCImputer().save(tmp_path / "model")


def test_a_device_that_is_not_here(tmp_path):
    imputer, _ = KINDS["anchor"]()
    imputer.set_params(device="cpu").fit(hide(gaussian_table(60, 3, 0)[0], 0.2, 1))
    imputer.set_params(device="cuda:7").save(tmp_path / "model")
    assert ADMCImputer.load(tmp_path / "model").device_.type == "cpu"
    with pytest.raises(ValueError, match="cuda:7"):
        ADMCImputer.load(tmp_path / "model", device="cuda:7")


def test_memory_usage_counts_what_is_stored(with_donors, tmp_path):
    usage = with_donors.memory_usage_
    assert {"network", "donors"} <= set(usage.index)
    size = with_donors.save(tmp_path / "model")["bytes"]
    assert usage["bytes"].sum() == pytest.approx(size, rel=0.1)
    assert usage.loc["donors", "rows"] == len(with_donors.model_.donors.values)
    landmarks = with_donors.model_.landmarks
    if landmarks is not None:
        assert usage.loc["landmarks", "rows"] == len(landmarks.solution.T)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model"
    quick(add_indicator=True).fit(hide(gaussian_table(50, 3, 0)[0], 0.2, 1)).save(path)
    return path


POISON = [
    *(None, 0, -1, 2**60, 1e308, "x", [], {}, True),
    {"is": "float", "of": "nan"},
    {"is": "set", "of": []},
    {"is": "objects", "of": [], "shape": [2**50]},
    {"is": "range", "of": [0, 2**60, 1]},
    {"is": "MissingIndicator", "of": {"features": [0], "n": 2**50}},
    {"is": "__class__", "of": 1},
    {"is": "scalar", "of": 1, "dtype": "O"},
    {"is": "tensor", "of": "probe", "order": [5]},
]


def places(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, part in items:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from places(part, (*path, key))


def test_contents_made_to_do_harm_are_refused_or_harmless(small_file, tmp_path):
    """Whoever writes a file can make its checksum right: what is inside is checked."""
    arrays, content = read(small_file)
    rng = np.random.default_rng(0)
    every, refused = list(places(content)), 0
    for _ in range(60):
        changed = copy.deepcopy(content)
        *way, last = every[rng.integers(len(every))]
        part = changed
        for key in way:
            part = part[key]
        if rng.random() < 0.75:
            part[last] = POISON[rng.integers(len(POISON))]
        else:
            del part[last]
        write(tmp_path / "model", arrays, changed, "0.2.0")
        try:
            ADMCImputer.load(tmp_path / "model")
        except ValueError:
            refused += 1
    assert refused > 40


def test_arrays_that_were_exchanged_are_noticed(small_file, tmp_path):
    arrays, content = read(small_file)
    changed = {**arrays, "probe": arrays["probe"] + 1}
    write(tmp_path / "model", changed, content, "0.2.0")
    with pytest.raises(BadFile, match="does not complete as it did"):
        ADMCImputer.load(tmp_path / "model")


def test_parameters_are_checked(small_file, tmp_path):
    arrays, content = read(small_file)
    text = json.dumps(content).replace(
        '"tol": 0.01', '"tol": {"is": "float", "of": "nan"}'
    )
    assert "nan" in text
    write(tmp_path / "model", arrays, json.loads(text), "0.2.0")
    with pytest.raises(ValueError, match="tol"):
        ADMCImputer.load(tmp_path / "model")


def test_skops_dumps_a_pipeline():
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    X = hide(gaussian_table(50, 3, 0)[0], 0.2, 1)
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    del pipeline[-1]._settings  # what an experiment set
    dumped = skops.dumps(pipeline)
    trusted = skops.get_untrusted_types(data=dumped)
    assert trusted == ["admc_sklearn._imputer.ADMCImputer"]
    again = skops.loads(dumped, trusted=trusted)
    assert same(pipeline.transform(X), again.transform(X))


@pytest.mark.parametrize("name", ["cells", "blocks"])
def test_files_of_the_first_format_are_still_read(name):
    """They were saved by 0.2.0 and completed this table so."""
    golden = HERE / "_storage" / "golden"
    imputer = ADMCImputer.load(golden / f"{name}.safetensors")
    given = pd.read_csv(golden / f"{name}_given.csv")
    expected = pd.read_csv(golden / f"{name}_completed.csv")
    found = imputer.set_output(transform="pandas").transform(given)
    for column in given:
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(found[column], expected[column], atol=1e-4)
        else:
            assert found[column].astype(str).tolist() == expected[column].tolist()
