"""The progress bar: a widget where the notebook has them, text elsewhere."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # A notebook without ipywidgets gets text, which is no reason to warn at import.
    warnings.simplefilter("ignore", category=TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
