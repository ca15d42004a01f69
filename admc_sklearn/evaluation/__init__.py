"""Comparison of imputers on a table of one's own, and scores of completed cells."""

from ._compare import compare_imputers
from ._energy_score import energy_i_score
from ._ranking import ranking
from ._scorer import imputation_scores, make_imputation_scorer

__all__ = [
    "compare_imputers",
    "energy_i_score",
    "imputation_scores",
    "make_imputation_scorer",
    "ranking",
]
