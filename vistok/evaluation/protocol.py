"""One stated way to evaluate a tokenizer: every number comes with how it was made."""

import math
import os
import platform
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .. import __version__
from ..data import PictureTransform, Source, ordered_batches, to_pixel_values
from ..modeling import VQModelHF
from .metrics import CodebookUsage, psnr, ssim


@torch.no_grad()
def evaluate(
    model: VQModelHF,
    source: Source,
    *,
    resolution: int | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    limit: int | None = None,
    on_error: str = "error",
    progress: bool = True,
) -> dict[str, Any]:
    """Reconstructs every picture of a split and measures L1, PSNR, SSIM and the use of the codebook.

    Pictures are cropped at their centre; reconstructions are clamped and rounded to uint8, as a file of them
    would be. Results are means over pictures, so that the batch size does not change them.

    Args:
        model: The tokenizer; put into eval mode.
        source: The split, of `vistok.data.open_dataset`.
        resolution: Height and width in pixels; by default the model's `image_size`.
        batch_size: Pictures at a time.
        num_workers: Processes that decode pictures.
        limit: Evaluate the first so many pictures only.
        on_error: What to do with a picture that cannot be read: `"error"` or `"skip"`, which counts it.
        progress: Whether to show a progress bar.

    Returns:
        `metrics` (name to number) and `protocol` (how they were made), ready for JSON.

    Raises:
        ValueError: The split is empty, a picture cannot be read, or the model's output is not finite.
    """
    model.eval()
    resolution = model.config.image_size if resolution is None else resolution
    batches = ordered_batches(
        source,
        PictureTransform(resolution),
        batch_size=batch_size,
        num_workers=num_workers,
        limit=limit,
        on_error=on_error,
    )
    usage = CodebookUsage(model.codebook_size, model.config.num_codebooks) if model.codebook_size else None
    sums = dict.fromkeys(["l1", "psnr", "ssim"], 0.0)
    count = unreadable = 0
    expected = source.num_rows if limit is None else min(limit, source.num_rows or limit)
    with (
        closing(batches),
        tqdm(total=expected, desc="Evaluating", unit="picture", disable=not progress) as bar,
    ):
        for batch in batches:
            pixel_values = to_pixel_values(batch["pixels"].to(model.device))
            out = model.encode(pixel_values)
            reconstruction = model.decode_quantized(out.quantized).float()
            if not reconstruction.isfinite().all():
                rows = batch["row"].tolist()
                raise ValueError(
                    f"Reconstructions of rows {rows[0]} to {rows[-1]} are not finite: is the model broken?"
                )
            pictures, references = _rounded(reconstruction), _rounded(pixel_values)
            sums["l1"] += float((pictures - references).abs().double().flatten(1).mean(1).sum())
            sums["psnr"] += float(psnr(pictures, references).sum())
            sums["ssim"] += float(ssim(pictures, references).sum())
            if usage is not None:
                usage.update(out.tokens)
                tokens_per_picture = out.tokens[0].numel()
            count += len(pictures)
            unreadable += int(batch["unreadable"])
            bar.update(len(pictures))
    if count == 0:
        raise ValueError(
            f"{source.name} has no readable picture in split {source.split!r}: nothing to evaluate"
        )
    metrics: dict[str, float] = {name: total / count for name, total in sums.items()}
    if usage is not None:
        metrics |= usage.compute()
        metrics["tokens_per_picture"] = tokens_per_picture
        metrics["bits_per_pixel"] = tokens_per_picture * math.log2(model.codebook_size) / resolution**2
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    return {
        "metrics": metrics,
        "protocol": {
            "dataset": Path(source.name).name if os.path.exists(source.name) else source.name,
            "dataset_fingerprint": source.fingerprint,
            "split": source.split,
            "pictures": count,
            "unreadable_pictures": unreadable,
            "resolution": resolution,
            "preprocessing": "shorter edge to the resolution, bicubic with antialiasing; centre crop",
            "rounding": "clamped to [-1, 1], rounded to uint8",
            "l1": "mean absolute error per value, pixel values in [0, 1]",
            "psnr": "dB, mean over pictures, RGB",
            "ssim": "11x11 Gaussian window, sigma 1.5, RGB, data range 1, mean over pictures",
            "codebook_usage": "share of entries used at least once over all pictures",
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "versions": {
                "vistok": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    }


def _rounded(pixel_values: torch.Tensor) -> torch.Tensor:
    """Pixel values as a file of uint8 would hold them, in [0, 1]."""
    rounded = ((pixel_values.float().clamp(-1, 1) + 1) * 127.5).round() / 255
    return rounded.cpu() if rounded.device.type == "mps" else rounded  # which has no float64 to measure in


def format_metrics(metrics: dict[str, float], names: Iterable[str] = ()) -> str:
    """Metrics as one line for people, such as `psnr 23.10, ssim 0.8012`; all of them or those named."""
    chosen = {name: metrics[name] for name in (names or metrics) if name in metrics}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in chosen.items()
    )
