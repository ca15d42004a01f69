"""The same imputer over datasets of Ray, on one machine or many.

It needs ``pip install "admc_sklearn[ray]"``.
"""

from ._datasets import fit, sample, transform

__all__ = ["fit", "sample", "transform"]


def __dir__():
    return __all__
