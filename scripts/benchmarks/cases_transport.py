"""OptVQ: the tokens of the transport plan and the cross-entropy of distances, beside the formulae in full."""

import torch
from common import difference, differing
from harness import Case
from torch import Tensor
from torch.nn import functional as F

from vistok.quantizers.distance_cross_entropy import distance_cross_entropy
from vistok.quantizers.sinkhorn import sinkhorn_tokens

ITERATIONS, EPSILON = 5, 10.0


def _points(latents: int, entries: int, channels: int, device: str) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(latents, channels, generator=draw)
    return rows.to(device), (0.8 * torch.randn(entries, channels, generator=draw)).to(device)


@torch.no_grad()
def naive_tokens(rows: Tensor, table: Tensor) -> Tensor:
    """The formula as OptVQ writes it: every cost, then every step on the whole matrix."""
    cost = torch.cdist(rows, table)
    cost = (cost - cost.mean()) / (cost.std() + 1e-6)
    cost = cost - cost.min()
    plan = torch.exp(-cost * EPSILON).t()
    plan /= plan.sum()
    for _ in range(ITERATIONS):
        plan /= plan.sum(1, keepdim=True)
        plan /= len(table)
        plan /= plan.sum(0, keepdim=True)
        plan /= len(rows)
    return (plan * len(rows)).t().argmax(1)


@torch.no_grad()
def in_place_tokens(rows: Tensor, table: Tensor) -> Tensor:
    """The same formula with as few passes over one matrix as it allows."""
    cost = torch.cdist(rows, table)
    cost = cost.sub_(cost.mean()).div_(cost.std() + 1e-6)
    plan = cost.sub_(cost.min()).mul_(-EPSILON).exp_().t()
    plan /= plan.sum()
    for _ in range(ITERATIONS):
        plan /= plan.sum(1, keepdim=True).mul_(len(table))
        plan /= plan.sum(0, keepdim=True).mul_(len(rows))
    return plan.argmax(0)


def sinkhorn(latents: int, entries: int, channels: int, byte_budget: int, device: str) -> Case:
    """The tokens of the transport plan, the matrix stored or not as the budget allows."""
    rows, table = _points(latents, entries, channels, device)

    def run() -> Tensor:
        return sinkhorn_tokens(rows, table, iterations=ITERATIONS, epsilon=EPSILON, byte_budget=byte_budget)

    case = Case(
        {
            "ours": run,
            "formula in full": lambda: naive_tokens(rows, table),
            "formula in full, in place": lambda: in_place_tokens(rows, table),
        }
    )
    case.gate = {"tokens, of float64": (differing(run(), naive_tokens(rows.double(), table.double())), 0)}
    return case


def cross_entropy(latents: int, entries: int, channels: int, device: str) -> Case:
    """The cross-entropy of the distances, with its gradients."""
    rows, table = (x.requires_grad_() for x in _points(latents, entries, channels, device))
    tokens = torch.arange(latents, device=device) % entries

    def step(loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        to_rows, to_table = torch.autograd.grad(loss, (rows, table))
        return loss.detach(), to_rows, to_table

    def ours() -> tuple[Tensor, Tensor, Tensor]:
        return step(distance_cross_entropy(rows, table, tokens))

    def naive() -> tuple[Tensor, Tensor, Tensor]:
        return step(F.cross_entropy(-torch.cdist(rows, table), tokens))

    names = ("loss", "gradient of the latents", "gradient of the entries")
    case = Case({"ours": ours, "formula in full": naive})
    case.gate = {n: (difference(a, b), 1e-5) for n, a, b in zip(names, ours(), naive(), strict=True)}
    return case
