"""Scratch package: the display of admc_sklearn."""
