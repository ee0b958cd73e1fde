import math

import numpy as np
import pytest

from polarmask_ops import _C


def directions(num_rays: int) -> np.ndarray:
    return np.array([_C.ray_direction(k, num_rays) for k in range(num_rays)])


@pytest.mark.parametrize("num_rays", [3, 4, 7, 8, 36, 37, 72, 360, 1024])
def test_directions_are_cosine_and_sine(num_rays):
    angle = 8 * np.arctan(np.longdouble(1)) * np.arange(num_rays) / num_rays
    want = np.stack([np.cos(angle), np.sin(angle)], 1)
    np.testing.assert_allclose(directions(num_rays), want, rtol=0, atol=2**-52)  # an ulp of 1


@pytest.mark.parametrize("num_rays", [4, 8, 36, 72, 360, 1024])
def test_mirror_images_are_equal_to_the_bit(num_rays):
    u = directions(num_rays)
    k = np.arange(num_rays)
    assert (u[(num_rays - k) % num_rays] == u * [1, -1]).all()
    assert (u[(num_rays // 2 - k) % num_rays] == u * [-1, 1]).all()
    assert (u[(num_rays // 4 - k) % num_rays] == u[:, ::-1]).all()


def test_axes_and_diagonals_are_exact():
    u = directions(8)
    assert u[::2].tolist() == [[1, 0], [0, 1], [-1, 0], [0, -1]]
    assert (abs(u[1::2]) == math.sqrt(0.5)).all()
