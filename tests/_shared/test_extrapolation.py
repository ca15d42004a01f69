"""Extrapolated iterations end where plain ones do, sooner."""

import pytest
import torch

from admc_sklearn._shared.extrapolation import extrapolated


def test_a_geometric_course_is_followed_to_its_end():
    end, step = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 2.0])
    course = [[end - 0.8**k * step] for k in range(3)]
    (found,) = extrapolated(*course)
    torch.testing.assert_close(found, end)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_does_not_move_stays(dtype):
    points = [torch.ones(2, dtype=dtype), torch.zeros(3, 2, dtype=dtype)]
    for found, point in zip(extrapolated(*[points] * 3), points, strict=True):
        torch.testing.assert_close(found, point)


def test_one_step_bounds_how_far_it_goes():
    """A course without a bend has no end: it is followed for a while only."""
    (found,) = extrapolated(*([torch.tensor([float(k)])] for k in range(3)))
    assert 2.0 < float(found) < 20.0
