"""One thread for packages of tests whose tensors are tiny: their conftest.py imports `one_thread`."""

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """A second thread costs more than it brings there, ten times so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
