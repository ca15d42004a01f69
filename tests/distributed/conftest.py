"""A mixed table, an imputer of it, and one session of Ray for all tests."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tests.conftest import quick

pytest.importorskip("pyarrow", reason="Arrow is not installed")


def mixed_frame(n, seed):
    """Numbers, levels, text, whole numbers, times and truth values; 20 % hidden."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    days = pd.to_timedelta((b * 100).round(), unit="D")
    frame = pd.DataFrame(
        {
            "a": a,
            "b": b,
            "sum": a + b + 0.3 * rng.normal(size=n),
            "side": pd.Categorical(np.where(a > 0, "right", "left")),
            "text": np.where(b > 0, "above", "below"),
            "whole": pd.array((a * 10).round(), dtype="Int64"),
            "day": pd.Timestamp("2020-01-01") + days,
            "is_large": pd.array(a > 1, dtype="boolean"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.2)


@pytest.fixture(scope="session")
def frame():
    return mixed_frame(600, 0)


@pytest.fixture(scope="session")
def imputer(frame):
    """Fitted to a frame of numpy's dtypes; tests leave it as it is."""
    return quick(n_steps=2).fit(frame)


@pytest.fixture(scope="session")
def ray_data():
    """`ray.data` in a session of two workers."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=300_000_000,
            log_to_driver=False,
            logging_level="error",
        )
        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    yield ray.data
    ray.shutdown()
