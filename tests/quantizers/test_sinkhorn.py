"""Sinkhorn's tokens are those of float64 in log space; the cross-entropy over distances is autograd's."""

import itertools
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F

from vistok.quantizers import sinkhorn
from vistok.quantizers.distance_cross_entropy import distance_cross_entropy
from vistok.quantizers.search import nearest
from vistok.quantizers.sinkhorn import sinkhorn_tokens

WAYS = {"kept": 2**29, "not kept": 0}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def log_plan(
    rows: Tensor, table: Tensor, iterations: int = 5, epsilon: float = 10.0, cost_normalization: str = "all"
) -> Tensor:
    cost = torch.cdist(rows.double(), table.double(), compute_mode="donot_use_mm_for_euclid_dist")
    if cost_normalization == "all":
        cost = (cost - cost.mean()) / (cost.std() + 1e-6)
    if cost_normalization == "dim":
        cost = cost / math.sqrt(rows.shape[1])
    plan = -epsilon * cost
    for _ in range(iterations):
        plan = plan - plan.logsumexp(0, keepdim=True) - math.log(plan.shape[1])
        plan = plan - plan.logsumexp(1, keepdim=True) - math.log(plan.shape[0])
    return plan


def assert_tokens_of_float64(rows: Tensor, table: Tensor, within: float = 2e-5, **settings) -> None:
    plan = log_plan(rows, table, **settings)
    found = [sinkhorn_tokens(rows, table, byte_budget=budget, **settings) for budget in WAYS.values()]
    assert torch.equal(*found)
    lost = plan.amax(1) - plan.gather(1, found[0][:, None])[:, 0]
    assert lost.max() <= within  # what rounding in float32 may take for the largest


def inputs(kind: str) -> tuple[Tensor, Tensor]:
    rows, table = random(300, 8), 0.8 * random(517, 8, seed=1)
    if kind == "outliers":
        rows[::50] *= 30
    if kind == "codebook in a far corner":
        table = 0.1 * table + 20
    if kind == "both far from zero":
        rows, table = rows + 1000, table + 1000
    if kind == "entries on latents":
        table[:200] = rows[:200]
    if kind == "tiny codebook":
        table *= 1e-4
    if kind == "one outlying latent":
        rows[7] = 1e4
    return rows, table


KINDS = [
    "plain",
    "outliers",
    "codebook in a far corner",
    "both far from zero",
    "entries on latents",
    "tiny codebook",
    "one outlying latent",
]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_float64_in_log_space(kind: str):
    assert_tokens_of_float64(*inputs(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_underflows_at_epsilon_100(kind: str):
    # Entries of which one latent has all the mass have equal shares of it, up to the rounding of float64.
    assert_tokens_of_float64(*inputs(kind), epsilon=100.0, within=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_many_iterations(kind: str):
    assert_tokens_of_float64(*inputs(kind), epsilon=30.0, iterations=60)


@pytest.mark.parametrize("cost_normalization", ["all", "dim", "none"])
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_settings(cost_normalization: str, iterations: int):
    settings = {"cost_normalization": cost_normalization, "iterations": iterations}
    assert_tokens_of_float64(*inputs("plain"), **settings, epsilon=4.0)
    assert_tokens_of_float64(*(x.double() for x in inputs("plain")), **settings)


@pytest.mark.parametrize(
    ("rows", "entries", "channels"), [(40, 1, 3), (1, 2, 3), (2, 700, 3), (700, 2, 1), (37, 129, 40)]
)
def test_sizes(rows: int, entries: int, channels: int):
    assert_tokens_of_float64(random(rows, channels), random(entries, channels, seed=1))


def test_one_latent_and_one_entry():
    assert sinkhorn_tokens(random(1, 3), random(1, 3, seed=1)).tolist() == [0]


def test_no_latents():
    tokens = sinkhorn_tokens(torch.zeros(0, 8), random(5, 8))
    assert tokens.shape == (0,)
    assert tokens.dtype == torch.int64


def test_published_example():
    # These costs + 10 are the distances of points in space to the corners of a triangle; a shift of all costs
    # changes no plan. The argmax is that of the original project's function.
    costs = [[0, 1, 2], [0.1, 1, 2], [0.2, 0.9, 2], [0.3, 1, 1.5], [0, 2, 3], [0, 1.5, 2.5]]
    table = torch.tensor([[0, 0, 0], [5, 0, 0], [2.5, 5 * math.sqrt(0.75), 0]], dtype=torch.float64)
    squares = (torch.tensor(costs, dtype=torch.float64) + 10).square()
    right = (squares[:, :1] - squares[:, 1:] + table[1:].square().sum(1)) / 2
    plane = torch.linalg.solve(table[1:, :2], right.t()).t()
    rows = torch.cat([plane, (squares[:, :1] - plane.square().sum(1, keepdim=True)).sqrt()], 1)
    torch.testing.assert_close(torch.cdist(rows, table) - 10, torch.tensor(costs, dtype=torch.float64))
    assert sinkhorn_tokens(rows, table, cost_normalization="none").tolist() == [1, 1, 1, 2, 0, 0]
    shares = log_plan(rows, table, cost_normalization="none").softmax(1)
    assert shares[0].tolist() == pytest.approx([0.2774, 0.5057, 0.2170], abs=5e-3)  # there with 1e-8 in sums
    assert nearest(rows, table).tolist() == [0] * 6


def test_latents_are_shared_out_where_the_nearest_entry_takes_all():
    rows, table = inputs("codebook in a far corner")
    assert len(nearest(rows, table).unique()) < 15
    assert len(sinkhorn_tokens(rows, table).unique()) > 60


# What takes no part


@pytest.mark.parametrize("way", WAYS)
def test_masked_rows_take_no_part(way: str):
    rows, table = inputs("plain")
    mask = torch.rand(300, generator=torch.Generator().manual_seed(2)) < 0.6
    rows[~mask] *= 100
    tokens = sinkhorn_tokens(rows, table, mask=mask, byte_budget=WAYS[way])
    assert torch.equal(tokens[mask], sinkhorn_tokens(rows[mask], table))
    assert torch.equal(tokens[~mask], nearest(rows[~mask], table))
    assert torch.equal(sinkhorn_tokens(rows, table, mask=mask.view(3, 100)), tokens)
    none = sinkhorn_tokens(rows, table, mask=torch.zeros_like(mask))
    assert torch.equal(none, nearest(rows, table))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38], ids=str)
def test_rows_that_are_not_finite_leave_the_others_alone(value: float):
    rows, table = inputs("plain")
    bad = torch.arange(300) % 7 == 3
    rows[bad, 2] = value
    tokens = sinkhorn_tokens(rows, table)
    assert ((tokens >= 0) & (tokens < len(table))).all()
    assert torch.equal(tokens[~bad], sinkhorn_tokens(rows[~bad], table))
    for broken in (torch.full_like(table, value), table.index_fill(0, torch.tensor([5]), value)):
        tokens = sinkhorn_tokens(inputs("plain")[0], broken)
        assert ((tokens >= 0) & (tokens < len(table))).all()


def test_inputs_are_left_alone_and_make_no_graph():
    rows, table = (x.requires_grad_() for x in inputs("entries on latents"))
    kept = rows.detach().clone(), table.detach().clone()
    assert not sinkhorn_tokens(rows, table).requires_grad
    assert torch.equal(rows, kept[0])
    assert torch.equal(table, kept[1])


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": 0}, {"epsilon": 0.0}, {"epsilon": math.inf}, {"cost_normalization": "mean"}],
    ids=str,
)
def test_bad_settings_are_named(wrong: dict):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        sinkhorn_tokens(random(4, 2), random(3, 2), **wrong)


def test_the_matrix_is_kept_only_within_its_budget(monkeypatch):
    kept = []

    class Tiles(sinkhorn.Tiles):
        def __init__(self, latents: Tensor, entries: Tensor, keep: bool):
            super().__init__(latents, entries, keep)
            kept.append((keep, self.matrix.numel()))

    monkeypatch.setattr(sinkhorn, "Tiles", Tiles)
    monkeypatch.setattr(sinkhorn, "_CPU_TILE", 4 * 8 * 517)
    rows, table = inputs("plain")
    size = rows.shape[0] * table.shape[0]
    for budget in (4 * size, 4 * size - 1):
        sinkhorn_tokens(rows, table, byte_budget=budget)
    assert kept == [(True, size), (False, 8 * 517)]


# Over ranks


def _rank_tokens(rank: int, folder: str, counts: list[int], masked: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=len(counts))
    rows, table = inputs("outliers")
    own = torch.arange(300).split(counts)[rank]
    mask = (torch.arange(300) % 3 > 0) if masked else None
    own_mask = None if mask is None else mask[own]
    tokens = sinkhorn_tokens(rows[own], table, mask=own_mask, byte_budget=0 if rank else 2**29)
    rows, table = rows[own].clone().requires_grad_(), table.requires_grad_()
    loss = distance_cross_entropy(rows, table, tokens, own_mask)
    loss.backward()
    torch.save([tokens, loss.detach(), rows.grad, table.grad], f"{folder}/{rank}")
    dist.destroy_process_group()


@pytest.mark.parametrize(("counts", "masked"), [([150, 150], False), ([13, 287], True), ([300, 0], True)])
def test_several_ranks_equal_one(counts: list[int], masked: bool, tmp_path):
    mp.start_processes(_rank_tokens, (str(tmp_path), counts, masked), nprocs=len(counts), start_method="fork")
    ranks = [torch.load(tmp_path / str(rank)) for rank in range(len(counts))]
    rows, table = inputs("outliers")
    mask = (torch.arange(300) % 3 > 0) if masked else None
    tokens = sinkhorn_tokens(rows, table, mask=mask)
    assert torch.equal(torch.cat([rank[0] for rank in ranks]), tokens)
    if not masked and len(set(counts)) > 1:
        return
    rows.requires_grad_(), table.requires_grad_()
    loss = distance_cross_entropy(rows, table, tokens, mask)
    loss.backward()
    # Gradients are averaged over the ranks, as DistributedDataParallel does.
    torch.testing.assert_close(sum(rank[1] for rank in ranks) / 2, loss.detach())
    torch.testing.assert_close(torch.cat([rank[2] for rank in ranks]) / 2, rows.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sum(rank[3] for rank in ranks) / 2, table.grad, atol=1e-6, rtol=1e-5)


# The cross-entropy


def plain_cross_entropy(rows: Tensor, table: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    keep = torch.ones(len(rows), dtype=torch.bool) if mask is None else mask
    return F.cross_entropy(-torch.cdist(rows, table)[keep], tokens[keep])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["plain", "outliers", "codebook in a far corner", "both far from zero"])
@pytest.mark.parametrize("tile", [1 << 20, 1 << 14])
def test_cross_entropy_is_autograds(masked: bool, kind: str, tile: int, monkeypatch):
    monkeypatch.setattr(sinkhorn, "_CPU_TILE", tile)
    mask = torch.arange(300) % 3 > 0 if masked else None
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        rows, table = (x.to(dtype).requires_grad_() for x in inputs(kind))
        tokens = torch.randint(517, (300,), generator=torch.Generator().manual_seed(3))
        loss = distance_cross_entropy(rows, table, tokens, mask)
        assert loss.dtype == dtype
        gradients = torch.autograd.grad(3 * loss, [rows, table])
        exact = [x.detach().double().requires_grad_() for x in (rows, table)]
        expected = plain_cross_entropy(*exact, tokens, mask)
        torch.testing.assert_close(loss.double(), expected, atol=tolerance, rtol=tolerance)
        for found, right in zip(gradients, torch.autograd.grad(3 * expected, exact), strict=True):
            torch.testing.assert_close(found.double(), right, atol=tolerance, rtol=tolerance)


def test_cross_entropy_gradcheck():
    rows, table = (random(n, 3, seed=n, dtype=torch.float64).requires_grad_() for n in (7, 5))
    tokens, mask = torch.tensor([0, 4, 4, 1, 2, 0, 3]), torch.arange(7) != 2
    for chosen in (None, mask):
        assert torch.autograd.gradcheck(
            lambda x, e, chosen=chosen: distance_cross_entropy(x, e, tokens, chosen), (rows, table)
        )
    fixed = table.detach()
    assert torch.autograd.gradcheck(lambda x: distance_cross_entropy(x, fixed, tokens), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_of_latents_on_entries(dtype: torch.dtype):
    table = random(50, 4, dtype=dtype)
    table[1] = table[0]
    rows = table[:20].clone()
    tokens = torch.cat([torch.arange(10), torch.arange(10)])  # half on their target, half on another entry
    found = [x.clone().requires_grad_() for x in (rows, table)]
    loss = distance_cross_entropy(*found, tokens)
    gradients = torch.autograd.grad(loss, found)
    exact = [x.double().requires_grad_() for x in (rows, table)]
    distances = torch.cdist(*exact, compute_mode="donot_use_mm_for_euclid_dist")  # zero at zero
    expected = F.cross_entropy(-distances, tokens)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-8
    torch.testing.assert_close(loss.double(), expected, atol=tolerance, rtol=0)
    for one, right in zip(gradients, torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(one.double(), right, atol=tolerance, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_cross_entropy_of_equal_points_has_no_gradient(value: float):
    rows, table = torch.full((3, 2), value, requires_grad=True), torch.full((4, 2), value, requires_grad=True)
    loss = distance_cross_entropy(rows, table, torch.tensor([0, 1, 3]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)
    assert not rows.grad.any()
    assert not table.grad.any()


def test_cross_entropy_without_places():
    table = random(5, 3).requires_grad_()
    for rows, mask in ((torch.zeros(0, 3), None), (random(2, 3), torch.zeros(2, dtype=torch.bool))):
        loss = distance_cross_entropy(rows, table, torch.zeros(len(rows), dtype=torch.int64), mask)
        assert loss == 0
        assert not torch.autograd.grad(loss, table)[0].any()


def test_masked_places_cannot_poison_the_cross_entropy():
    rows, table = inputs("plain")
    rows[4] = math.nan
    rows[5] = math.inf
    mask = torch.arange(300) > 5
    leaves = [rows.requires_grad_(), table.requires_grad_()]
    tokens = torch.arange(300)
    loss = distance_cross_entropy(*leaves, tokens, mask)
    expected = distance_cross_entropy(rows[6:], table, tokens[6:])
    torch.testing.assert_close(loss, expected)
    for one, right in itertools.zip_longest(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves)
    ):
        torch.testing.assert_close(one, right)
