"""The public names as typed code uses them: checked by mypy, not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from admc_sklearn import (
    ADMCImputer,
    CrossModalFeatures,
    ImputationDisplay,
    __version__,
    join_modalities,
)
from admc_sklearn.evaluation import (
    compare_imputers,
    imputation_scores,
    make_imputation_scorer,
    ranking,
)
from admc_sklearn.missingness import ampute
from admc_sklearn.pooling import PooledEstimates, pool_estimates, pool_over_draws


def mean_of_columns(draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Analyse one completed data set."""
    return draw.mean(axis=0), draw.var(axis=0) / len(draw)


def with_arrays(X: np.ndarray) -> str:
    """Arrays come back as arrays."""
    imputer: ADMCImputer = ADMCImputer(random_state=0, max_time=10, batch_size=64)
    imputer = ADMCImputer(
        modalities={"audio": slice(0, 3), "text": ["x3", "x4"], "video": [5, 6]},
        strategy="median",
        missing_values=[-99, np.nan],
        categorical_features=[0, 1],
        self_masking="auto",
        keep_whole_numbers=True,
        random_state=np.random.RandomState(0),
    ).fit(X, groups=[0] * len(X))
    incomplete: np.ndarray = ampute(X, mechanism="mar", rate=[0.1, 0.2])
    listed: np.ndarray = ampute([[1.0, 2.0], [3.0, 4.0]], rate={0: 0.5})
    completed: np.ndarray = imputer.transform(incomplete)
    draws: np.ndarray = imputer.sample(incomplete, 20, random_state=1)
    low, high = imputer.predict_quantiles(listed, [0.1, 0.9])
    proba: np.ndarray = imputer.predict_proba(completed, "colour")
    names: list[str] = list(imputer.get_feature_names_out())
    weights: pd.DataFrame = imputer.attention(X)
    epochs: int = imputer.n_epochs_
    slopes: np.ndarray = imputer.self_masking_
    gaps: np.ndarray = imputer.gaps_
    pooled: PooledEstimates = pool_over_draws(draws, mean_of_columns, dfcom=9)
    first: float = pool_estimates([1.0, 2.0], [0.1, 0.2]).estimate
    limits: np.ndarray = pooled.conf_int
    table: pd.DataFrame = pooled.to_frame()
    learnt = epochs, slopes, gaps
    return f"{low, high, proba, names, weights, learnt, first, limits, table}"


def with_frames(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Frames come back as frames of the same library."""
    incomplete: pl.DataFrame = ampute(frame, rate=0.2, random_state=0)
    imputer = ADMCImputer(
        categorical_features=lambda table: table.columns, missing_values={"age": 0}
    )
    return imputer.fit(incomplete).sample(incomplete, n_draws=5)


def with_modalities(text: np.ndarray, audio: list[list[float] | None]) -> np.ndarray:
    """Joined tables, and the counterparts of their modalities."""
    X, modalities = join_modalities({"text": text, "audio": audio})
    X_new, _ = join_modalities({"text": text, "audio": None}, like=modalities)
    features = CrossModalFeatures(ADMCImputer(modalities=modalities), cv=3).fit(X)
    completed: np.ndarray = features.transform(X_new)
    names: np.ndarray = features.get_feature_names_out()
    return completed[:, names == "x0"]


def with_evaluation(imputers: dict[str, Any], X: np.ndarray, path: Path) -> float:
    """Compare, rank, tune and draw."""
    results: pd.DataFrame = compare_imputers(
        imputers, X, mechanisms=["mcar", "mnar"], rates=0.3, path=path, random_state=0
    )
    ranks: pd.DataFrame = ranking(results, "mae", alpha=0.1)
    scorer = make_imputation_scorer("mae", rate=0.2, mechanism="mcar")
    display = ImputationDisplay.from_comparison(results, metric="mae")
    display = ImputationDisplay.from_imputer(imputers["a"], X, columns=["x0", 1])
    figure = display.plot(figsize=(4, 3)).figure_
    figure.savefig(f"{__version__}.png")
    score: float = scorer(imputers[ranks.index[0]], X)
    return score + imputation_scores(X, X, X, X_reference=X)["rmse"]
