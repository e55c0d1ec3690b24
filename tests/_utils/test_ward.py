import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from constrained_vae._utils import deadline
from constrained_vae._utils.ward import ward_tree


@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (60, 5)])
def test_the_tree_is_that_of_scipy(shape):
    points = np.random.default_rng(0).standard_normal(shape)
    assert ward_tree(points) == pytest.approx(linkage(points, "ward"), rel=1e-13)


def test_the_deadline_is_kept():
    with deadline.within(0.0), pytest.raises(deadline.TimeUp):
        ward_tree(np.zeros((3, 2)))
