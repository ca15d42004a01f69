"""Missing cells: removing them on purpose, and describing those that are there."""

from ._ampute import ampute
from ._patterns import McarTest, flux, mcar_test

__all__ = ["McarTest", "ampute", "flux", "mcar_test"]


def __dir__() -> list[str]:
    return __all__
