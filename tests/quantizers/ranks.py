"""One rank of `test_ranks.py`: every method's steps on its share of a batch, saved for comparison.

    python -m tests.quantizers.ranks RANK WORLD_SIZE FOLDER

With a world size of 1 there is no process group and the batch is whole.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from .methods import METHODS, Method, latents_for

STEPS = 3
BATCH = 7  # which neither 2 nor 3 ranks share evenly
GRID = (4, 5)


def run(method: Method, rank: int, world_size: int, masked: bool) -> dict[str, Tensor]:
    """What the steps of this rank gave, and the state they left."""
    quantizer = method.build().double().train()
    quantizer.set_step(0)
    share = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    results = {}
    for step in range(STEPS):
        joined = latents_for(quantizer, BATCH, GRID, seed=step).double()
        latents, grid = joined[share].requires_grad_(), joined.shape[2:]
        draw = torch.Generator().manual_seed(100 + step)
        weights = torch.randn(BATCH, quantizer.quantized_dim, *grid, generator=draw).double()[share]
        mask = torch.rand(BATCH, *grid, generator=draw)[share] > 0.4 if masked else None
        quantizer.zero_grad()
        out = quantizer(latents, mask)
        functional = (out.quantized * weights).sum() * (world_size / BATCH)
        (functional + out.loss).backward()
        results |= {f"{step}/loss/{name}": loss.detach() for name, loss in out.losses.items()}
        results[f"{step}/gradient"] = latents.grad / world_size
        if out.tokens is not None:
            results[f"{step}/tokens"] = out.tokens
        with torch.no_grad():
            for name, parameter in quantizer.named_parameters():
                if world_size > 1:  # as DistributedDataParallel does
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= world_size
                results[f"{step}/{name}.grad"] = parameter.grad.clone()
                parameter -= 0.1 * parameter.grad
        quantizer.set_step(step + 1)
    return results | {f"state/{name}": value.clone() for name, value in quantizer.state_dict().items()}


def main(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        store = f"file://{folder}/store"
        dist.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=120)
        )
    results = {}
    for method in METHODS:
        for masked in (False, True):
            found = run(method, rank, world_size, masked)
            results |= {f"{method}/{masked}/{name}": value for name, value in found.items()}
    torch.save(results, folder / f"{rank}.pt")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
