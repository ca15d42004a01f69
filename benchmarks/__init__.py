"""Measurements; none of it is part of the package."""
