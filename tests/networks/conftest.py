import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Tensors are tiny here: a second thread costs more than it brings, ten times so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
