"""Image models are computed by one thread: several processes that run tests would wait for each other's threads."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def draw():
    """draw(3, 4) is a float64 tensor (3, 4) of standard normal numbers, the same in every run."""
    torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")
    generator = torch.Generator().manual_seed(20181001)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
