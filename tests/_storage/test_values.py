"""Values that files hold, and come back as they were."""

import datetime
import json
import math
import zoneinfo
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from admc_sklearn._storage.values import Reader, Writer

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
VALUES = [
    [None, True, 3, "word", 0.1, -math.inf],
    (1, (2,)),
    {"a": 1, 2: [None], (1, 2): "pair"},
    {1, 2},
    slice(1, None, 2),
    range(3, 9, 2),
    np.int16(3),
    np.float32(0.1),
    np.datetime64("2020-01-01T03", "h"),
    Decimal("1.250"),
    pd.Timestamp("2020-01-01 10:00:00.123456789"),
    pd.Timestamp("2020-06-01 10:00", tz="Europe/Berlin"),
    pd.Timedelta("3h"),
    pd.Period("2020-03", "M"),
    pd.Interval(0.5, 1, "left"),
    datetime.date(2020, 1, 2),
    datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.timezone.utc),
    datetime.datetime(2020, 7, 2, 3, tzinfo=BERLIN),
    datetime.time(3, 4, 5, 6),
    datetime.time(3, tzinfo=BERLIN),
    b"\x00a",
    datetime.timedelta(days=1, microseconds=3),
    datetime.date,
    pd.Period,
    np.dtype("float32"),
    np.dtype("datetime64[us]"),
    pd.CategoricalDtype(["a", "b"], ordered=True),
    pd.CategoricalDtype([1, 2]),
    pd.CategoricalDtype(pd.interval_range(0, 3).tolist()),
    pd.Int64Dtype(),
    pd.BooleanDtype(),
    pd.StringDtype("python"),
    pd.DatetimeTZDtype("us", "Europe/Berlin"),
    pd.PeriodDtype("M"),
    pd.ArrowDtype(pa.timestamp("us")),
    pd.ArrowDtype(pa.dictionary(pa.int8(), pa.large_string(), ordered=True)),
    pd.ArrowDtype(pa.decimal128(12, 2)),
    pd.ArrowDtype(pa.string()),
    pl.Float64(),
    pl.Categorical(),
    pl.Enum(["x", "y"]),
    pl.Datetime("us", "UTC"),
    pl.Duration("ms"),
    pa.int32(),
    pa.timestamp("ms"),
    pa.decimal256(40, 3),
    pa.dictionary(pa.int32(), pa.string()),
    [f"word{k}" for k in range(500)] + ["", "é", "\ud800"],
]
ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(["2020-01-01", "NaT"], "datetime64[D]"),
    np.array(["a", None, 1.5, True], dtype=object),
    np.array(["ab", "c"]),
    np.array([], dtype=bool),
    np.arange(4, dtype=">i4"),
    np.array(1.5),
]


def there_and_back(value):
    writer = Writer({})
    content = json.loads(json.dumps(writer.write(value, "here")))
    return Reader(writer.arrays, {}, 10**6).read(content)


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{type(v).__name__}")
def test_a_value_comes_back(value):
    found = there_and_back(value)
    assert type(found) is type(value)
    assert found == value


def test_values_that_are_nothing_come_back():
    assert there_and_back(pd.NA) is pd.NA
    assert there_and_back(pd.NaT) is pd.NaT
    assert math.isnan(there_and_back(math.nan))


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: str(a.dtype))
def test_an_array_comes_back(value):
    found = there_and_back(value)
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_tensor_comes_back_in_its_order_in_memory(order):
    """Sums over other strides differ in the last bit."""
    value = torch.arange(24.0).reshape(2, 3, 4).permute(order)
    found = there_and_back(value)
    assert torch.equal(found, value)
    assert found.stride() == value.stride()


def test_text_of_arrow_is_read_where_arrow_is_not_installed(monkeypatch):
    plain = pd.StringDtype

    def without_arrow(storage, **options):
        if storage != "python":
            raise ImportError("pyarrow is required")
        return plain(storage, **options)

    content = Writer({}).write(plain("pyarrow"), "here")
    monkeypatch.setattr(pd, "StringDtype", without_arrow)
    assert Reader({}, {}, 10).read(content) == plain("python")


def test_what_occurs_twice_is_stored_once():
    tensor, writer = torch.arange(5.0), Writer({})
    content = writer.write([tensor, tensor], "here")
    assert list(writer.arrays) == ["here.0"]
    first, second = Reader(writer.arrays, {}, 10).read(content)
    assert first is second


def test_a_random_state_goes_on_as_it_would_have():
    state = np.random.RandomState(3)
    state.normal()
    assert there_and_back(state).normal() == state.normal()


@pytest.mark.parametrize(
    "value", [len, lambda: 0, object(), type, print, torch.nn.Conv1d(1, 1, 1)]
)
def test_code_is_refused_with_its_place(value):
    with pytest.raises(ValueError, match=r"here\.0 holds .*cannot hold"):
        Writer({}).write([value], "here")


@pytest.mark.parametrize(
    "content",
    [
        {"is": "set", "of": [{"is": "list"}]},
        {"is": "instance", "of": {}},
        {"is": "__init__", "of": {}},
        {"is": "CellModel", "of": {"forward": 1}},
        {"is": "TableCodec", "of": {}},
        {"is": "dtype", "of": "os.system"},
        {"is": "class", "of": "Popen"},
        {"is": "polars", "of": "read_csv", "with": ["x"]},
        {"is": "tensor", "of": "absent"},
        {"is": "MissingIndicator", "of": {"features": [], "n": 2**60}},
        {"of": 3},
    ],
)
def test_what_is_no_value_is_refused_and_nothing_is_run(content):
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        Reader({}, {}, 100).read(content)
