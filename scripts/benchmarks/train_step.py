"""A training step beside FSQ-pytorch's, what the loop adds to bare torch, and whether the data keeps up.

    python scripts/benchmarks/train_step.py [--case step] [--device cuda] [--rounds 7] [--json rows.json]
    python scripts/benchmarks/train_step.py --dataset_name [NAME] [--rounds 5]

FSQ-pytorch's network with its 64,000 entries (levels 8-8-8-5-5-5, 512 channels, 16.8 M parameters), four
pictures of 128 x 128, L1, no perceptual loss, its optimizer's settings. `Trainer.training_step` counts from
uint8 pixels to the cleared gradients: with it come the picture's error, the gradient's norm and the guard
against what is not finite, none of which the seed has. Before anything is timed, loss and gradients of the
same weights and pictures must be equal. Freed memory stays with the process, for both, as in `vistok train`.

The second form measures the stream of pictures alone beside what the network takes on two threads; without
a NAME, on the photographs of scikit-image.
"""

import argparse
import atexit
import copy
import itertools
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator

import torch
from harness import Case, interleave, main, with_goal
from torch import Tensor, nn
from tqdm.auto import tqdm

from vistok import FSQConfig, StridedCNNConfig, VQModelHF
from vistok.data import PictureStream, PictureTransform, open_dataset, to_pixel_values
from vistok.training import Trainer, TrainingConfig
from vistok.training.loop import StepOutput

LEVELS, SIZE, BATCH = [8, 8, 8, 5, 5, 5], 128, 4
WARMUP_STEPS = 5000  # no decay
STREAM_BATCHES = 64  # a sample of the data path: 256 pictures
READY_BATCHES = 2  # each worker's, made while nobody asks: torch's prefetch_factor


def convolutions_of(tokenizer: VQModelHF) -> list[nn.Module]:
    """The four convolutions of the encoder, the last one its projection, and the four of the decoder."""
    encoder, decoder = tokenizer.encoder, tokenizer.decoder
    return [
        *(down.conv for down in encoder.downs),
        tokenizer.to_latents,
        *(up.conv for up in decoder.ups),
        decoder.to_pixels,
    ]


class PlainFSQPytorch(nn.Module):
    """FSQ-pytorch's network and quantizer, layer by layer, on the weights of a vistok model.

    Args:
        tokenizer: A tokenizer with `StridedCNN` and FSQ; its weights are copied.
    """

    def __init__(self, tokenizer: VQModelHF):
        super().__init__()
        convolutions = convolutions_of(tokenizer)
        self.encoder, self.decoder = _stack(convolutions[:4]), _stack(convolutions[4:])
        levels = torch.tensor(LEVELS, dtype=torch.int32)
        self.register_buffer("levels", levels)
        self.register_buffer("places", torch.tensor([1, *LEVELS[:-1]]).cumprod(0, dtype=torch.int32))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Float `(B, 3, H, W)` -> the reconstruction and the codebook loss, which FSQ does not have."""
        quantized, _ = self.quantize(self.encoder(pixel_values))
        return self.decoder(quantized), pixel_values.new_zeros(())

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(B, D, h, w)` -> quantized vectors and tokens, by the paper's pseudo-code."""
        z = latents.permute(0, 2, 3, 1)
        half = (self.levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        bounded = torch.tanh(z + torch.tan(offset / half)) * half - offset
        half_width = self.levels // 2
        quantized = (bounded + (bounded.round() - bounded).detach()) / half_width
        tokens = ((quantized * half_width + half_width) * self.places).sum(-1).to(torch.int32)
        return quantized.permute(0, 3, 1, 2), tokens


def _stack(convolutions: list[nn.Module]) -> nn.Sequential:
    """Copies of convolutions, their kernels contiguous, a ReLU in place between two."""
    layers = []
    for original in convolutions:
        layer = copy.deepcopy(original)
        for parameter in layer.parameters():
            parameter.data = parameter.data.contiguous()
        layers += [layer, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class PlainLoop:
    """FSQ-pytorch's training loop: Adam as torch has it, losses summed, a rate that warms up.

    Args:
        tokenizer: Whose weights to begin with.
        device: Where.
    """

    def __init__(self, tokenizer: VQModelHF, device: str):
        self.model = PlainFSQPytorch(tokenizer).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, step / WARMUP_STEPS)
        )
        self.device = device

    def step(self, pixel_values: Tensor) -> Tensor:
        """One step on a float batch as a DataLoader of the seed hands it over; returns the loss."""
        pixel_values = pixel_values.to(self.device, non_blocking=True)
        reconstruction, codebook_loss = self.model(pixel_values)
        loss = codebook_loss + nn.functional.l1_loss(pixel_values, reconstruction)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss


def make_trainer(channels: int, device: str, precision: str = "no", use_ema: bool = False) -> Trainer:
    """Our trainer of FSQ-pytorch's network, with the rates of the recipe `fsq_imagenet128`."""
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    folder = tempfile.mkdtemp(prefix="vistok-step-")
    atexit.register(shutil.rmtree, folder)
    network = StridedCNNConfig(hidden_channels=channels)
    config = TrainingConfig(
        tokenizer=FSQConfig(levels=LEVELS, bound="tan", image_size=SIZE, network=network),
        output_dir=folder,
        train_batch_size=BATCH,
        mixed_precision=precision,
        l1_weight=1.0,
        l2_weight=0.0,
        learning_rate=1e-4,
        lr_scheduler="constant_with_warmup",
        lr_warmup_steps=WARMUP_STEPS,
        max_train_steps=10**6,
        adam_beta2=0.999,
        max_grad_norm=1e9,
        use_ema=use_ema,
        report_to="none",
    )
    trainer = Trainer(config)
    # As drawn, all latents are near 0 and all tokens are one: an equality of nothing.
    with torch.no_grad():
        trainer.tokenizer.to_latents.weight.mul_(30)
    return trainer


def seed_step(precision: str, use_ema: bool, device: str) -> Case:
    """Our step beside the seed's in float32.

    Args:
        precision: `"no"` or `"bf16"`, of ours.
        use_ema: Whether ours keeps averaged weights, which the seed does not.
        device: Where.
    """
    trainer = make_trainer(512, device, precision, use_ema)
    batch = next(trainer.stream.batches(pin_memory=device == "cuda"))
    pixel_values = to_pixel_values(batch["pixels"]).contiguous()
    seed, batches = PlainLoop(trainer.tokenizer, device), itertools.repeat(batch)
    case = Case(
        {"ours": lambda: trainer.training_step(batches), "seed, float32": lambda: seed.step(pixel_values)}
    )
    case.gate = compare(trainer, batches, seed, pixel_values, exact=precision == "no")
    return case


def compare(
    trainer: Trainer, batches: Iterator, seed: PlainLoop, pixel_values: Tensor, exact: bool
) -> dict[str, tuple[float, float]]:
    """How far losses and gradients of one step are apart, and how far they may be."""
    ours: dict[nn.Parameter, Tensor] = {}
    optimizer = trainer.optimizer.optimizer
    hook = optimizer.register_step_pre_hook(
        lambda *_: ours.update(
            (p, p.grad.clone()) for group in optimizer.param_groups for p in group["params"]
        )
    )
    out: StepOutput = trainer.training_step(batches)
    hook.remove()
    loss = seed.step(pixel_values)
    layers = [layer for part in (seed.model.encoder, seed.model.decoder) for layer in part]
    plain = [layer for layer in layers if not isinstance(layer, nn.ReLU)]
    pairs = list(zip(convolutions_of(trainer.tokenizer), plain, strict=True))
    apart = [
        ((ours[getattr(a, name)] - getattr(b, name).grad).norm() / getattr(b, name).grad.norm()).item()
        for a, b in pairs
        for name in ("weight", "bias")
    ]
    return {
        "loss": (abs(out.terms["l1"].item() - loss.item()), 1e-5 if exact else 1e-3),
        "gradients, relative": (max(apart), 1e-3 if exact else 0.2),
    }


def overhead(channels: int, device: str) -> Case:
    """`Trainer.training_step` beside forward, backward, clip and step of the same model and optimizer."""
    trainer = make_trainer(channels, device, use_ema=True)
    averaged, trainer.ema = trainer.ema, None
    batch = next(trainer.stream.batches(pin_memory=device == "cuda"))
    batches = itertools.repeat(batch)
    out = trainer.training_step(batches)
    bar = tqdm(file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the case
    trainer._open_folder()

    def with_average() -> None:
        trainer.ema = averaged
        trainer.training_step(batches)
        trainer.ema = None

    def log() -> None:
        trainer._log(out, trainer.stopwatch.read(10, 10 * BATCH), bar)

    return Case(
        {
            "ours": lambda: trainer.training_step(batches),
            "bare": bare_step(trainer, batch, device),
            "ours with averaged weights": with_average,
            "the log of every tenth step alone": log,
        }
    )


def bare_step(
    trainer: Trainer, batch: dict[str, Tensor], device: str, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """The least that trains: forward, backward, clip and step, on pixel values that are there."""
    model, optimizer = trainer.tokenizer, trainer.optimizer.optimizer
    pixel_values = to_pixel_values(batch["pixels"].to(device))
    parameters = list(model.parameters())

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            reconstruction = model(pixel_values).reconstruction
        nn.functional.l1_loss(reconstruction.float(), pixel_values).backward()
        nn.utils.clip_grad_norm_(parameters, 1e9)
        optimizer.step()
        optimizer.zero_grad()

    return step


def data_path(dataset_name: str, rounds: int) -> None:
    """Prints pictures a second: of the stream, of decoding alone, and of the network on two threads."""
    torch.set_num_threads(2)
    source = open_dataset(dataset_name, split="validation")
    transform = PictureTransform(SIZE, "random_crop", random_flip=True)
    rows = itertools.cycle(range(source.num_rows))
    trainer = make_trainer(512, "cpu")
    batch = next(trainer.stream.batches())
    pictures = STREAM_BATCHES * BATCH

    def stream(workers: int) -> Callable[[], None]:
        batches = PictureStream(source, transform, batch_size=BATCH, num_workers=workers).batches()
        return lambda: [next(batches) for _ in range(STREAM_BATCHES)]

    steps = {
        "stream, 0 workers": (stream(0), pictures),
        "stream, 2 workers": (stream(2), pictures - 2 * READY_BATCHES * BATCH),
        "decoding alone": (lambda: [source.read(next(rows)).decode() for _ in range(pictures)], pictures),
        "training, float32": (bare_step(trainer, batch, "cpu"), BATCH),
        "training, bfloat16": (bare_step(trainer, batch, "cpu", torch.bfloat16), BATCH),
    }
    print(
        f"{dataset_name}, {source.num_rows} pictures, {rounds} rounds, load average {os.getloadavg()[0]:.1f}"
    )
    samples = interleave({name: step for name, (step, _) in steps.items()}, rounds, "cpu")
    rates = {name: steps[name][1] / statistics.median(seconds) for name, seconds in samples.items()}
    print(f"  {'':22}{'pictures/s':>12}{'x float32':>12}{'x bfloat16':>12}")
    for name, rate in rates.items():
        shares = [rate / rates[f"training, {precision}"] for precision in ("float32", "bfloat16")]
        print(f"  {name:22}{rate:12.1f}" + "".join(f"{share:12.1f}" for share in shares))
    reached = min(rates["stream, 0 workers"], rates["stream, 2 workers"]) >= 3 * rates["training, bfloat16"]
    print(f"  at least 3x what the network takes: {'reached' if reached else 'MISSED'}")


CASES = {
    "seed's step, float32": with_goal(lambda d: seed_step("no", False, d), 0.95, math.inf),
    "seed's step, bfloat16": with_goal(lambda d: seed_step("bf16", False, d), 0.60, None),
    "seed's step, averaged weights": with_goal(lambda d: seed_step("no", True, d), None, None),
    # So few channels because the network costs their square and the loop does not: its largest share.
    "loop, 64 channels": with_goal(lambda d: overhead(64, d), 1.03, None),
}

if __name__ == "__main__":
    if any(word.startswith("--dataset_name") for word in sys.argv):
        parser = argparse.ArgumentParser(description=data_path.__doc__)
        parser.add_argument("--dataset_name", nargs="?", const="samples")
        parser.add_argument("--rounds", type=int, default=5)
        arguments = parser.parse_args()
        data_path(arguments.dataset_name, arguments.rounds)
    else:
        main(CASES, __file__, __doc__, processes=True, keep_memory=True)
