"""What a fitted imputer says of itself, and of the tables that it is given."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ._compat import _check_feature_names_in
from ._shared.caller_warnings import warn_caller
from ._table.containers import as_table, is_frame
from ._table.new_data import compare_tables, sentence
from ._table.types import Table

# Columns that the picture of an imputer lists, those with most missing cells.
MAX_COLUMNS = 20


class Reported:
    """Mixin of imputers with `compare_new_data` and an HTML representation."""

    def compare_new_data(self, X: Table, *, alpha: float = 1e-3) -> pd.DataFrame:
        """Compare a new table with that of `fit`: what differs in which column.

        Nothing is completed, and nothing is refused: columns may be lacking, be in
        another order or hold other kinds of values. A warning sums up the differences.

        Parameters
        ----------
        X : array-like of shape (n_samples, any number of features)
            New table. Columns of frames are matched by name, columns of arrays by
            position.
        alpha : float, default=1e-3
            Differences of missing rates and of ranges are reported where a table of
            the same distribution would have them with a lower probability, in each
            column. 1 reports all of them.

        Returns
        -------
        differences : DataFrame
            One row for each difference, in the order of the columns of `fit`, then
            new columns. It is empty if nothing differs. ``column`` is the name;
            ``difference``, ``in_fit`` and ``in_new`` say what it is:

            - ``"column"``: ``"present"`` or ``"absent"``;
            - ``"kind"``: number, category or time, with the dtype of a frame's column;
            - ``"levels"``: the levels of `fit`, and those that it did not see;
            - ``"range"``: lowest and highest value, where new ones lie beyond, more of
              them than chance explains or farther than the range is wide;
            - ``"missing rate"``: shares of missing cells. They differ by at least 0.01,
              or no cell of the column was missing in `fit`.

            ``share`` is the share of the observed cells of X that have unknown levels
            or lie beyond the range, and the share of the cells that are missing.

        Warns
        -----
        UserWarning
            Once, if anything differs.

        Raises
        ------
        ValueError
            If X has not two dimensions, or ``alpha`` is not in (0, 1].
        sklearn.exceptions.NotFittedError
            If the imputer is not fitted.

        Notes
        -----
        Whether missing rates differ is Fisher's exact test. Of two tables of one
        distribution, that the k lowest (or highest) values are all in the one with m of
        n values has the probability (m / n)^k. Files of release 0.2.0 have no missing
        rates: these are not compared then, and every value beyond the range counts.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> from admc_sklearn import ADMCImputer
        >>> X = pd.DataFrame({"a": np.arange(20.0), "b": ["x", "y"] * 10})
        >>> X.loc[3, "a"] = np.nan
        >>> imputer = ADMCImputer(max_epochs=0, random_state=0).fit(X)
        >>> new = pd.DataFrame({"a": [1.0, 50.0], "b": ["x", "z"]})
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     imputer.compare_new_data(new)
          column difference       in_fit       in_new  share
        0      a      range  (0.0, 19.0)  (1.0, 50.0)    0.5
        1      b     levels       [x, y]          [z]    0.5
        """
        check_is_fitted(self)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {alpha!r}.")
        X = as_table(X)
        if not is_frame(X) and getattr(X, "ndim", 0) != 2:
            raise ValueError(
                "X must be a frame or an array of shape (n_samples, n_features), got "
                f"shape {getattr(X, 'shape', None)}."
            )
        names = _check_feature_names_in(self, generate_names=True)
        found = compare_tables(self._codec, names, X, alpha)
        if len(found):
            warn_caller(sentence(found))
        return found

    # Notebooks call one of these two; scikit-learn's own do not call each other.
    def _repr_html_inner(self):
        return super()._repr_html_inner() + _html(self)

    def _repr_mimebundle_(self, **kwargs):
        output = super()._repr_mimebundle_(**kwargs)
        if "text/html" in output:
            output["text/html"] += _html(self)
        return output


def _html(imputer):
    """Tables of the model and of the columns; nothing of an unfitted imputer."""
    try:
        check_is_fitted(imputer)
    except NotFittedError:
        return ""
    parts = [_table("Model", _about_model(imputer)), _columns(imputer)]
    # scikit-learn hides its own diagram where styles are not trusted; this is plain.
    return (
        '<details class="admc-report"><summary>What fit found</summary>'
        f"{''.join(parts)}</details>"
    )


def _about_model(imputer):
    """Facts of the fitted model, pairs of a name and a text."""
    codec, model = imputer._codec, imputer.model_
    facts = []
    if hasattr(codec, "n_rows_"):
        facts.append(("Training rows", f"{codec.n_rows_:,}"))
    history = imputer.history_
    if len(history):
        if "part" in history:
            history = history[history["part"] == history["part"].iloc[-1]]
        errors = history.set_index("epoch")["valid_rmse"]
        kept = imputer.n_epochs_
        facts.append(
            (
                "Validation error",
                f"{errors[kept]:.4f} at epoch {kept} of {errors.index[-1]}; the anchor "
                f"alone has {errors.iloc[0]:.4f} (RMSE of hidden cells, in standard "
                "deviations)",
            )
        )
    if model is None:
        return [*facts, ("Mechanisms", "none: no column had an observed cell")]
    whole = model.held_out_errors[0]
    if not np.isnan(whole):
        facts.append(("Validation error with all mechanisms", f"{whole:.4f}"))
    usage = imputer.memory_usage_
    parts = []
    for name, rows in usage["rows"].items():
        text = name.replace("_", " ").replace("network", "anchor and network")
        parts.append(f"{text} ({rows:,} training rows)" if rows else text)
    facts.append(("Mechanisms", ", ".join(parts)))
    facts.append(("Size", f"{usage['bytes'].sum() / 1e6:.1f} MB"))
    return [*facts, ("Device", str(imputer.device_))]


def _columns(imputer):
    """Table of the columns with missing cells in `fit`, most first."""
    rates = getattr(imputer._codec, "missing_rates_", None)
    if rates is None:
        return ""
    names = _check_feature_names_in(imputer, generate_names=True)
    order = np.argsort(-rates, kind="stable")[: int((rates > 0).sum())]
    # Files of earlier versions have no gaps.
    gaps = getattr(imputer, "gaps_", np.full((len(names), 2), np.nan))
    rows = []
    for j in order[:MAX_COLUMNS]:
        text = f"{100 * rates[j]:.1f} %"
        if imputer.self_masking_[j]:
            text += f"; self-masking {imputer.self_masking_[j]:+.2f}"
        low, high = gaps[j]
        if low < high:
            text += f"; in the gap from {low:.4g} to {high:.4g}"
        rows.append((str(names[j]), text))
    more = len(order) - len(rows)
    if more:
        rows.append(("", f"and {more} more columns"))
    return _table(f"Missing cells: {len(order)} of {len(names)} columns", rows)


def _table(title, rows):
    """HTML table of pairs, under a title."""
    lines = [
        f"<tr><th scope='row' style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in rows
    ]
    caption = f"<caption style='text-align:left'>{escape(title)}</caption>"
    return f"<table>{caption}<tbody>{''.join(lines)}</tbody></table>"
