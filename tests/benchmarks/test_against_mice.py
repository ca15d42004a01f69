"""Pooled quantities beside R's: they agree where R is, else one sentence says so."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import against_mice


def test_one_sentence_where_r_is_not(monkeypatch, capsys):
    monkeypatch.setattr(against_mice, "has_r", lambda *packages: False)
    against_mice.main([])
    assert capsys.readouterr().out.strip() == against_mice.SKIPPED


@pytest.mark.skipif(
    not against_mice.has_r("mice", "mitml"), reason="R has no mice and mitml"
)
def test_every_quantity_agrees_with_r(monkeypatch, capsys):
    rng = np.random.default_rng(0)

    def completed(n_draws, **parameters):
        """Draws in which a quarter of the cells vary."""
        names = [*against_mice.NAMES, "progression"]
        table = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5)) * 20 + 140
        X = pd.DataFrame(table, columns=names)
        lost = rng.random(X.shape) < 0.25
        draws = [X + lost * rng.normal(0, 5, X.shape) for _ in range(n_draws)]
        return draws, X.mask(lost)

    monkeypatch.setattr(against_mice, "completed", completed)
    against_mice.main(["--draws", "4"])
    lines = capsys.readouterr().out.splitlines()
    differences = [float(line.split()[-1]) for line in lines[1:-1]]
    assert len(differences) > 60
    # Rounding alone stands between the two; p-values of 1e-15 have the most.
    assert max(differences) < 1e-7
    for part in ("pool, lm: fmi", "mice D1: p", "mitml D3: F", "pool.r.squared"):
        assert any(line.startswith(part) for line in lines), part
