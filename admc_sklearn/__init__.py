"""A scikit-learn imputer by an attention-based diffusion model."""

from ._cross_modal import CrossModalFeatures
from ._display import ImputationDisplay
from ._imputer import ADMCImputer
from ._table.join import join_modalities
from ._version import __version__

__all__ = [
    "ADMCImputer",
    "CrossModalFeatures",
    "ImputationDisplay",
    "__version__",
    "join_modalities",
]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or not name.startswith("_")]
