"""Two processes, and several micro-batches, train as one process does on the joined batch."""

import functools

import pytest
import torch
from torch import Tensor

from ..ranks import run_ranks
from .trainer_ranks import Case, cases

TOLERANCES = {"float64": 1e-6, "float32": 1e-5}
CASES = [(dtype, case) for dtype in TOLERANCES for case in cases(dtype)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The results of a dtype by the shape of the run, made when they are first asked for."""

    @functools.cache
    def made(dtype: str) -> dict[str, list[dict[str, Tensor]]]:
        folder = tmp_path_factory.mktemp(dtype)
        shapes = {"one": (1, 1), "two ranks": (2, 1), "four micro-batches": (1, 4)}
        return {
            name: run_ranks("tests.training.trainer_ranks", ranks, folder / name, micro_batches, dtype)
            for name, (ranks, micro_batches) in shapes.items()
        }

    return made


@pytest.mark.parametrize(("dtype", "case"), CASES, ids=str)
def test_two_ranks_train_as_one_process(dtype: str, case: Case, runs):
    same(dtype, case, runs(dtype)["one"][0], runs(dtype)["two ranks"])


@pytest.mark.parametrize(("dtype", "case"), [c for c in CASES if c[1].micro_batches_equal_one], ids=str)
def test_micro_batches_train_as_one_batch(dtype: str, case: Case, runs):
    same(dtype, case, runs(dtype)["one"][0], runs(dtype)["four micro-batches"])


def same(dtype: str, case: Case, one: dict[str, Tensor], ranks: list[dict[str, Tensor]]) -> None:
    names = [name for name in one if name.startswith(f"{case}/")]
    assert any("/loss/19/" in name for name in names) and any("/average/" in name for name in names)
    assert any("/adversary/" in name for name in names) == bool(case.adversary)
    tolerance = TOLERANCES[dtype]
    for name in names:
        assert all(torch.equal(rank[name], ranks[0][name]) for rank in ranks[1:]), name
        torch.testing.assert_close(
            ranks[0][name], one[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
