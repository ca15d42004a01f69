"""Corrections of the posteriors, each a `Correction` of `_shared/contract.py`.

A new one takes a file here, its settings in `_cells/settings.py`, its fit in
`_cells/fit.py` and its turn in `CellModel.corrections` of `_cells/model.py`.
"""
