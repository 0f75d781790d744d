"""Several processes equal one on the joined batch, for every method: real processes, joined by gloo."""

import pytest
import torch
from torch import Tensor

from ..ranks import run_ranks
from .methods import METHODS


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, list[dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    return {
        world_size: run_ranks("tests.quantizers.ranks", world_size, folder / str(world_size))
        for world_size in (1, 2, 3)
    }


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_ranks_equal_one_process(method, world_size: int, masked: bool, runs):
    prefix = f"{method}/{masked}/"
    (one,) = runs[1]
    ranks = runs[world_size]
    names = [name for name in one if name.startswith(prefix)]
    assert names
    for name in names:
        values = [rank[name] for rank in ranks]
        kind = name.removeprefix(prefix).split("/")[1]
        if "/loss/" in name:
            value = torch.stack(values).mean(0)
        elif kind in ("tokens", "gradient"):
            value = torch.cat(values)
        else:  # codebooks and their gradients: the same on all ranks, bit for bit
            assert all(torch.equal(other, values[0]) for other in values[1:]), name
            value = values[0]
        torch.testing.assert_close(value, one[name], atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
