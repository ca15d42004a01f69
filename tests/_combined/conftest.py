"""Here blocks are completed as blocks."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def as_blocks(blocks_alone):
    """Throughout these tests."""
