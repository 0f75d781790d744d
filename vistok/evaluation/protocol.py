"""One stated way to evaluate a tokenizer: every number comes with how it was made."""

import math
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from tqdm.auto import tqdm

from .. import __version__
from ..data import PictureTransform, Source, ordered_batches, to_pixel_values
from ..data.stream import Batch, OnError
from ..modeling import VQModelHF
from ..quantizers.distributed import world_size
from .measurement import Measurement
from .measures import Measures
from .ranks import rank
from .speed import LapTimer
from .usage import QUEUE

CROPS = {
    "center_crop": "shorter edge to the resolution, bicubic with antialiasing; centre crop",
    "adm_crop": "halved by a box filter while at least twice the resolution, shorter edge to the resolution, "
    "bicubic with antialiasing; centre crop (ADM's, as LlamaGen and OptVQ evaluate)",
    "celeba_crop": "the 128 pixels around (89, 121) of an aligned picture, to the resolution, bilinear with "
    "antialiasing",
}
_PACKAGES = ("torch", "transformers", "torchmetrics", "numpy", "pillow")


@torch.no_grad()
def evaluate(
    model: VQModelHF,
    source: Source,
    *,
    measures: Measures | None = None,
    resolution: int | None = None,
    crop: str = "center_crop",
    batch_size: int = 64,
    num_workers: int = 0,
    limit: int | None = None,
    expected: int | None = None,
    on_error: OnError = "error",
    progress: bool = True,
) -> dict[str, Any]:
    """Reconstructs every picture of a split and measures the reconstructions and the use of the codebook.

    Reconstructions are clamped and rounded to uint8, as a file of them would be. With a process group, each
    rank takes its batches and all get the same result. Neither ranks nor batches change a number, as far as
    the model computes the same for a picture whatever stands beside it in a batch.

    Args:
        model: The tokenizer; put into eval mode.
        source: The split, of `vistok.data.open_dataset`.
        measures: The metrics; by default L1, MSE, PSNR and SSIM. `load_measures` loads those with networks.
        resolution: Height and width in pixels; by default the model's `image_size`.
        crop: `"center_crop"`, `"adm_crop"` or `"celeba_crop"`.
        batch_size: Pictures at a time.
        num_workers: Processes that decode pictures, for each rank.
        limit: Evaluate the first so many pictures only.
        expected: How many pictures there must be, the unreadable ones among them; by default as many as the
            source says.
        on_error: What to do with a picture that cannot be read: `"error"` or `"skip"`, which counts it.
        progress: Whether to show a progress bar.

    Returns:
        `metrics` (name to number), `codebooks` (usage, perplexity, dead entries and histogram of each),
        `extremes` (rows of the worst, median and best reconstructions), `speed`, and `protocol` (how all this
        was made), ready for JSON.

    Raises:
        ValueError: A picture cannot be read, the number of pictures is another, the model's output is not
            finite, of another size or in another range, or a number of the settings is below 1.
    """
    model.eval()
    resolution = model.config.image_size if resolution is None else resolution
    check_positive(resolution=resolution, limit=limit)
    measures = measures or Measures()
    measurement = Measurement(measures, model.codebook_size, model.config.num_codebooks)
    encoding, decoding = LapTimer(model.device), LapTimer(model.device)
    batches = batches_of_rank(
        source, PictureTransform(resolution, crop), batch_size, num_workers, limit, on_error
    )
    for batch in passing(batches, source, limit, progress):
        measurement.skip(batch["unreadable_rows"])
        if not len(batch["row"]):
            continue
        pixels = batch["pixels"].to(model.device)
        pixel_values = to_pixel_values(pixels)
        encoding.start()
        out = model.encode(pixel_values)
        encoding.stop(len(pixels))
        decoding.start()
        reconstruction = model.decode_quantized(out.quantized)
        decoding.stop(len(pixels))
        measurement.update(batch["row"], reconstruction.float(), pixels.permute(0, 3, 1, 2), out.tokens)
    measured = finished(measurement, source, expected, limit)
    metrics = measured["metrics"]
    if model.codebook_size:
        tokens_per_picture = math.prod(
            model.quantizer.token_shape(model.encoder.grid(resolution, resolution))
        )
        metrics["tokens_per_picture"] = tokens_per_picture
        metrics["bits_per_pixel"] = tokens_per_picture * math.log2(model.codebook_size) / resolution**2
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    return {
        "metrics": metrics,
        "codebooks": measured["codebooks"],
        "extremes": measured["extremes"],
        "speed": {
            "encode_images_per_second": encoding.rate(),
            "decode_images_per_second": decoding.rate(),
            "batch_size": batch_size,
            "processes": world_size(),
            "threads": torch.get_num_threads(),
            "of": encoding.of,
        },
        "protocol": {
            **describe_source(source, measured, resolution, crop, measures, limit),
            "codebook_usage": "share of entries used at least once over all pictures",
            "usage_queue_65536": f"share of entries among the last {QUEUE:,} tokens of each codebook",
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": device_name(model.device),
            **_tf32(model.device),
        },
    }


def check_positive(**settings: int | None) -> None:
    """Refuses numbers below 1; those that are None are not given.

    Raises:
        ValueError: The first that is, by its name.
    """
    for name, value in settings.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def batches_of_rank(
    source: Source, transform: Any, batch_size: int, num_workers: int, limit: int | None, on_error: OnError
) -> Iterator[Batch]:
    """The batches of a split that this rank measures; those without a readable picture too."""
    return ordered_batches(
        source,
        transform,
        batch_size=batch_size,
        rank=rank(),
        world_size=world_size(),
        num_workers=num_workers,
        limit=limit,
        on_error=on_error,
        keep_empty=True,
    )


def passing(batches: Iterator[Batch], source: Source, limit: int | None, progress: bool) -> Iterator[Batch]:
    """The batches, with a progress bar over the pictures of this rank, which the first rank shows."""
    rows = source.num_rows if limit is None else min(limit, source.num_rows or limit)
    total = None if rows is None else -(-rows // world_size())
    hidden = not progress or rank() > 0
    with closing(batches), tqdm(total=total, desc="Evaluating", unit="picture", disable=hidden) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch["row"]))


def at_most(source: Source, limit: int | None) -> int | None:
    """How many pictures a pass sees, or at most; None where nobody knows."""
    return min((number for number in (source.num_rows, limit) if number is not None), default=None)


def finished(
    measurement: Measurement, source: Source, expected: int | None, limit: int | None
) -> dict[str, Any]:
    """What the measurement says; an error that names the split where the number of pictures is another."""
    if expected is None and source.num_rows is not None:
        expected = at_most(source, limit)
    try:
        return measurement.finish(expected)
    except ValueError as error:
        raise ValueError(f"{source.name}, split {source.split!r}: {error}") from error


def describe_source(
    source: Source,
    measured: dict[str, Any],
    resolution: int,
    crop: str,
    measures: Measures,
    limit: int | None,
) -> dict[str, Any]:
    """The part of the protocol that says which pictures were measured how."""
    texts = measures.describe()
    return {
        "dataset": os.path.basename(os.path.abspath(source.name))
        if os.path.exists(source.name)
        else source.name,
        "dataset_config_name": source.config_name,
        "dataset_revision": source.revision,
        "dataset_fingerprint": source.fingerprint,
        "split": source.split,
        "image_column": source.image_column,
        "max_samples": limit,
        "pictures": measured["pictures"],
        "unreadable_pictures": len(measured["unreadable_rows"]),
        "unreadable_rows": measured["unreadable_rows"][:100],
        "resolution": resolution,
        "crop": crop,
        "preprocessing": CROPS[crop],
        "rounding": "clamped to [-1, 1], rounded to uint8",
        "colour_space": "RGB",
        **texts,
        "versions": {"vistok": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """`cpu`, or `cuda` with the name of the GPU."""
    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def _tf32(device: torch.device) -> dict[str, bool]:
    """Whether a GPU rounds float32 to TensorFloat-32 in convolutions and in products of matrices."""
    if device.type != "cuda":
        return {}
    return {
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_matmuls": torch.backends.cuda.matmul.allow_tf32,
    }


def format_metrics(metrics: dict[str, float], names: Iterable[str] = ()) -> str:
    """Metrics as one line for people, such as `psnr 23.10, ssim 0.8012`; all of them or those named."""
    chosen = {name: metrics[name] for name in (names or metrics) if name in metrics}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in chosen.items()
    )
