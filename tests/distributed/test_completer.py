"""Batches of Arrow are completed as one table is, whatever is in them."""

import copy

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from admc_sklearn.distributed._arrow import Layout, frame_of
from admc_sklearn.distributed._complete import Completer
from tests.conftest import quick
from tests.distributed.conftest import mixed_frame

# A row alone and the row in a batch differ by float32 products.
TOLERANCE = 1e-4


def table_with_id(frame):
    named = frame.assign(id=np.arange(len(frame)))
    return pa.Table.from_pandas(named, preserve_index=False)


def completer_of(imputer, table, n_draws=None, key=("id",)):
    layout = Layout.of(imputer, table.schema, list(key))
    return Completer(imputer, layout, n_draws, seed=7)


def parts_of(table, size):
    return [table.slice(k, size) for k in range(0, len(table), size)]


def assert_alike(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        one, other = found[name], expected[name]
        assert one.dtype == other.dtype, name
        if one.dtype == "double[pyarrow]":
            np.testing.assert_allclose(
                one.to_numpy(), other.to_numpy(), atol=TOLERANCE, err_msg=name
            )
        else:
            assert one.tolist() == other.tolist(), name


def strategic(imputer, strategy):
    return copy.copy(imputer).set_params(strategy=strategy)


@pytest.mark.parametrize("strategy", ["mean", "median", "sample"])
@pytest.mark.parametrize("size", [1, 37, 200])
def test_rows_come_out_as_one_call_gives_them(imputer, frame, strategy, size):
    table = table_with_id(frame.head(200 if size > 1 else 12))
    completer = completer_of(strategic(imputer, strategy), table)
    whole = completer(table)
    parts = [completer(part) for part in parts_of(table, size)]
    assert {part.schema for part in parts} == {whole.schema}
    joined = pa.concat_tables(parts)
    assert_alike(frame_of(joined.unify_dictionaries()), frame_of(whole))
    if strategy != "sample":  # whose draws are seeded by the key here
        once = strategic(imputer, strategy).set_output(transform="pandas")
        once = once.transform(frame.head(len(table)))
        own = whole.drop_columns("id").to_pandas()
        for name in once:
            assert own[name].tolist() == once[name].tolist(), name


def test_types_are_those_of_the_dataset(imputer, frame):
    table = table_with_id(frame)
    out = completer_of(imputer, table)(table)
    assert out.column_names == ["id", *frame.columns]
    assert [out.schema.field(f.name).type for f in table.schema] == table.schema.types
    assert sum(column.null_count for column in out.columns) == 0
    pd.testing.assert_series_equal(out.to_pandas().dtypes[1:], frame.dtypes)


def test_a_batch_without_rows_has_the_schema(imputer, frame):
    table = table_with_id(frame)
    completer = completer_of(imputer, table, n_draws=2)
    empty = completer(table.slice(0, 0))
    assert len(empty) == 0
    assert empty.schema == completer(table.slice(0, 3)).schema


@pytest.mark.parametrize("name", ["a", "side", "text", "whole", "day", "is_large"])
def test_a_column_that_is_null_in_a_batch_has_its_type(imputer, frame, name):
    table = table_with_id(frame)
    completer = completer_of(imputer, table)
    part = table.slice(0, 20)
    at = part.column_names.index(name)
    blank = part.set_column(at, name, pa.nulls(20))
    typed = part.set_column(at, name, pa.nulls(20, part.schema.field(name).type))
    found = completer(blank)
    assert found.schema == completer(part).schema
    assert_alike(frame_of(found), frame_of(completer(typed)))


def test_a_column_that_is_null_in_the_schema_has_the_type_of_fit(imputer, frame):
    part = table_with_id(frame).slice(0, 20)
    for name in ("a", "text", "day"):
        at = part.column_names.index(name)
        blank = part.set_column(at, name, pa.nulls(20))
        completer = completer_of(imputer, blank)
        out = completer(blank)
        assert out.column(name).null_count == 0
        assert out.to_pandas()[name].dtype.kind == frame[name].dtype.kind
        # A later batch in which the column has values.
        assert completer(part).schema == out.schema


def test_equal_rows_have_draws_by_their_key_alone(imputer, frame):
    rows = frame.iloc[[0] * 60].assign(a=np.nan, b=np.nan, sum=np.nan)
    table = table_with_id(rows.reset_index(drop=True))
    completer = completer_of(imputer, table, n_draws=2)
    whole = completer(table).to_pandas().set_index([".imp", "id"])
    assert whole.loc[1].a.nunique() > 50
    shuffled = table.take(np.random.default_rng(0).permutation(60))
    parts = pa.concat_tables(completer(part) for part in parts_of(shuffled, 7))
    parts = parts.unify_dictionaries().to_pandas().set_index([".imp", "id"])
    parts = parts.loc[whole.index]
    np.testing.assert_allclose(parts.a, whole.a, atol=TOLERANCE)
    assert parts.side.tolist() == whole.side.tolist()


def test_draws_without_a_key_are_those_of_sample(imputer, frame):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    completer = completer_of(imputer, table, n_draws=2, key=())
    completer.seed = imputer._sampling_seed
    out = pa.concat_tables(completer(part) for part in parts_of(table, 100))
    out = out.unify_dictionaries().to_pandas()
    for k, draw in enumerate(imputer.sample(frame, 2), start=1):
        own = out[out[".imp"] == k]
        # A draw may fall on the other side of a threshold by a float32 product.
        assert (np.abs(own.a.to_numpy() - draw.a.to_numpy()) < TOLERANCE).mean() > 0.99


def test_an_imputer_of_an_array_takes_the_columns_in_their_order(frame):
    X = frame[["a", "b", "sum"]].to_numpy()
    imputer = quick(max_epochs=0, add_indicator=True).fit(X)
    table = pa.table({"one": X[:, 0], "two": X[:, 1], "three": X[:, 2]})
    out = completer_of(imputer, table, key=())(table)
    assert out.num_columns == 6
    expected = imputer.transform(X)
    np.testing.assert_allclose(out.to_pandas().to_numpy(dtype=float), expected)


def test_errors_name_the_column(imputer, frame):
    table = table_with_id(frame)
    with pytest.raises(ValueError, match="Column 'id' of the dataset was not in fit"):
        completer_of(imputer, table, key=())
    with pytest.raises(ValueError, match="no column 'text', which fit saw"):
        completer_of(imputer, table.drop_columns("text"))
    with pytest.raises(ValueError, match="key: the dataset has no column 'name'"):
        completer_of(imputer, table, key=["name"])
    part = table.slice(0, 3)
    at = part.column_names.index("whole")
    wrong = part.set_column(at, "whole", pa.array([0.5, 1.5, None]))
    with pytest.raises(ValueError, match="Column 'whole' is int64 in the dataset's"):
        completer_of(imputer, table)(wrong)
    narrow = pa.table({"one": [1.0, 2.0]})
    arrays = quick(max_epochs=0).fit(np.zeros((20, 2)))
    with pytest.raises(ValueError, match="has 1 columns to complete, and fit saw 2"):
        completer_of(arrays, narrow, key=())


def test_memory_of_arrow_is_read_alone(imputer):
    table = table_with_id(mixed_frame(50, 3))
    copied = pa.ipc.open_stream(
        _serialised(table)
    ).read_all()  # one buffer, as in the object store
    completer_of(imputer, table)(copied)
    assert copied.equals(table)


def _serialised(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
