"""One process of `test_ranks.py`: 20 steps of the trainer with every method, saved for comparison.

    python -m tests.training.trainer_ranks RANK WORLD_SIZE ACCUMULATION DTYPE FOLDER

All take steps of the same 8 pictures, cut into ranks and micro-batches.
"""

import os
import sys
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vistok.data import to_pixel_values
from vistok.training import Trainer, TrainingConfig, loop

from ..quantizers.methods import METHODS, Method

STEPS = 20
BATCH = 8
NETWORK = {"model_type": "vistok_simple_cnn", "hidden_channels": 4, "num_res_blocks": 1}
LAYOUTS = ({"num_codebooks": 1}, {"codebook_layout": "residual", "shared_codebook": False})


ADVERSARY = {
    "adversarial_weight": 0.5,
    "discriminator_start_step": 2,
    "adversarial_start_step": 4,
    "discriminator_channels": 16,
    "discriminator_layers": 2,
    "discriminator_normalization": "group",
    "r1_weight": 0.1,
    "lecam_weight": 0.1,
}


@dataclass(frozen=True)
class Case:
    """A method, and its adversary: none, "adversary", or "adaptive" with the adaptive weight."""

    method: Method
    adversary: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.adversary}".strip()

    @property
    def micro_batches_equal_one(self) -> bool:
        return self.adversary != "adaptive" and not self.method.build().batch_statistics


def cases(dtype: str) -> list[Case]:
    """Each method with one codebook and, in float64, with those of a residual; one against an adversary.

    In float32 a rounding changes the token of a latent that lies between two, and residual latents do.
    """
    layouts = LAYOUTS if dtype == "float64" else LAYOUTS[:1]
    methods = [
        method
        for method in METHODS
        if any(layout.items() <= dict(method.values).items() for layout in layouts) and "=" not in str(method)
    ]
    against = [
        Case(method, who) for method in methods if str(method) == "FSQ" for who in ("adversary", "adaptive")
    ]
    return [*map(Case, methods), *against]


class PreciseTrainer(Trainer):
    """A trainer whose model computes in the default dtype; codebooks too."""

    def _build_model(self):
        return super()._build_model().to(torch.get_default_dtype())


def run(case: Case, world_size: int, accumulation: int, folder: Path) -> dict[str, Tensor]:
    """The losses of the steps, and the weights and their averages that they left."""
    config = TrainingConfig(
        tokenizer=case.method.config(image_size=20, network=NETWORK),
        output_dir=str(folder / "run"),
        max_train_steps=STEPS,
        train_batch_size=BATCH // world_size // accumulation,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-3,
        adam_epsilon=1e-3,  # the update of a gradient of about 0 would magnify its rounding
        ema_decay=0.9,
        report_to="none",
        adaptive_adversarial_weight=case.adversary == "adaptive",
        **(ADVERSARY if case.adversary else {}),
    )
    trainer = PreciseTrainer(config)
    trainer.tokenizer.quantizer.set_step(0)
    batches = trainer.stream.batches()
    results = {}
    for number in range(STEPS):
        step = trainer.training_step(batches)
        assert step.taken
        for name, term in (step.terms | step.discriminator_terms).items():
            results[f"loss/{number}/{name}"] = trainer.accelerator.reduce(term.clone(), "mean")
    results |= {f"live/{name}": value for name, value in trainer.tokenizer.state_dict().items()}
    if trainer.adversary is not None:
        for part in (trainer.adversary.discriminator, trainer.adversary.lecam):
            results |= {f"adversary/{name}": value for name, value in part.state_dict().items()}
    return results | {f"average/{name}": value for name, value in trainer.ema.state_dict().items()}


def main(rank: int, world_size: int, accumulation: int, dtype: str, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, dtype))
    warnings.simplefilter("error")
    loop.to_pixel_values = lambda pixels: to_pixel_values(pixels).to(torch.get_default_dtype())
    os.environ |= {"ACCELERATE_USE_CPU": "true"}
    if world_size > 1:
        store = f"file://{folder}/store"
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # asked for; the store is a file
        dist.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=120)
        )
    results = {}
    for case in cases(dtype):
        if accumulation > 1 and not case.micro_batches_equal_one:
            continue
        found = run(case, world_size, accumulation, folder)
        results |= {f"{case}/{name}": value.detach().clone() for name, value in found.items()}
    torch.save(results, folder / f"{rank}.pt")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
