"""The two ranks of `test_adversarial.py`: adversarial steps on shares of a batch, saved for comparison.

    python -m tests.training.adversarial_ranks FOLDER

With a world size of 1 there is no process group and the batch is whole.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from vistok.training.adversarial import (
    LeCam,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from vistok.training.discriminators import PatchDiscriminator

BATCH = 4
LOGITS = 7  # which two ranks do not share evenly


def averaged_gradients(module: nn.Module, world_size: int) -> Tensor:
    """As DistributedDataParallel does; the weights take a step along them."""
    gradients = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    if world_size > 1:
        dist.all_reduce(gradients)
        gradients /= world_size
    parts = gradients.split([parameter.numel() for parameter in module.parameters()])
    with torch.no_grad():
        for parameter, part in zip(module.parameters(), parts, strict=True):
            parameter -= 0.1 * part.view(parameter.shape)
    module.zero_grad()
    return gradients


def run(rank: int, world_size: int) -> dict[str, Tensor]:
    """What two steps of this rank gave."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))
    decoder = decoder.double().to(memory_format=torch.channels_last)
    discriminator = PatchDiscriminator(channels=16, num_layers=1, normalization="group").double()
    lecam, uneven = LeCam(0.9).double(), LeCam(0.9).double()
    share = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    uneven_share = slice(rank * LOGITS // world_size, (rank + 1) * LOGITS // world_size)
    results = {}
    for step in range(2):
        features, pictures = torch.randn(BATCH, 4, 8, 8), torch.randn(BATCH, 3, 8, 8)
        features, pictures = features[share].double(), pictures[share].double()

        reconstruction = decoder(features)
        distance = (reconstruction - pictures).abs().mean()
        adversarial = generator_loss("non_saturating", discriminator(reconstruction))
        weight = adaptive_weight(distance, adversarial, decoder[-1].weight)
        (distance + weight * adversarial).backward()
        results[f"{step}/weight"] = weight
        results[f"{step}/decoder"] = averaged_gradients(decoder, world_size)

        discriminator.zero_grad()
        real, fake = discriminator(pictures), discriminator(reconstruction.detach())
        loss = discriminator_loss("hinge", real, fake) + 0.3 * lecam(real, fake)
        (loss + 0.2 * r1_penalty(discriminator, pictures)).backward()
        results[f"{step}/discriminator"] = averaged_gradients(discriminator, world_size)
        for part in (slice(0, 1), slice(1, None)):
            lecam.gather_statistics(real[part], fake[part])
        logits = torch.randn(2, LOGITS).double()[:, uneven_share]
        uneven.gather_statistics(*logits)
        for name, average in (("lecam", lecam), ("uneven", uneven)):
            average.apply_statistics()
            results[f"{step}/{name}"] = torch.stack([average.real_mean, average.fake_mean])
    return results


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    torch.save(run(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that the imports, which take longer than the steps, are made once.
    mp.start_processes(main, args=(Path(sys.argv[1]),), nprocs=2, start_method="fork")
