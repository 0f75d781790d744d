"""What measuring costs: SSIM beside scikit-image's, and all that is measured beside encoding and decoding.

    python scripts/benchmarks/evaluation.py [--rounds 5] [--pictures 4]

One thread, candidates interleaved, the processor's time, the least of the rounds: other programs disturb it
least. Before anything is timed the results must agree.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from skimage import data
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from vistok import VQConfig, VQGANConfig, VQModelHF
from vistok.evaluation import CodebookUsage, Measures, ssim
from vistok.evaluation.usage import RecentUsage

SIDE = 256  # pixels
SSIM_GOAL = 0.35  # times scikit-image's time
USAGE_GOAL = 0.01  # of an evaluation
WHOLE_GOAL = 0.10  # of encoding and decoding


def skimage_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The SSIM of one picture, uint8 `(H, W, 3)`, by the same window."""
    return structural_similarity(
        a, b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


def cpu_seconds(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor per step, a sample a round, of at least a tenth of a second each."""
    repeats = {}
    for name, step in steps.items():
        step()
        begin = time.process_time()
        step()
        repeats[name] = max(1, round(0.1 / max(time.process_time() - begin, 1e-6)))
    samples = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.process_time()
            for _ in range(repeats[name]):
                step()
            samples[name].append((time.process_time() - begin) / repeats[name])
    return samples


def main() -> None:
    """Prints three ratios and whether they reach their goals; ends with an error where one does not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="samples of each candidate")
    parser.add_argument("--pictures", type=int, default=4, help="pictures in a batch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = arguments.pictures
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    crops = np.stack([photographs[i % 4][20 + i : 20 + i + SIDE, 40 : 40 + SIDE] for i in range(count)])
    noise = np.random.default_rng(0).normal(0, 10, crops.shape)
    noisy = (crops + noise).clip(0, 255).round().astype(np.uint8)
    references, pictures = (torch.from_numpy(x).movedim(-1, 1) for x in (crops, noisy))
    a, b = pictures.float() / 255, references.float() / 255

    torch.manual_seed(0)
    config = VQConfig(codebook_size=16384, codebook_dim=8, normalize=True, network=VQGANConfig())
    model = VQModelHF(config).eval()
    tokens = torch.randint(0, 16384, (count, 16, 16))
    counts, recent, measures = CodebookUsage(16384), RecentUsage(16384), Measures(("psnr", "ssim"))
    rows = iter(range(10**9))

    def use() -> None:
        counts.update(tokens)
        recent.update(torch.tensor([next(rows) for _ in range(count)]), tokens)

    @torch.no_grad()
    def encode_and_decode() -> None:
        model.decode_quantized(model.encode(references / 127.5 - 1).quantized)

    by_scikit_image = [skimage_ssim(x, y) for x, y in zip(noisy, crops, strict=True)]
    apart = np.abs(ssim(a, b).numpy() / by_scikit_image - 1).max()
    if not apart < 1e-6:
        raise SystemExit(f"SSIM differs from scikit-image's by {apart:.2g}: not timed")
    print(f"torch {torch.__version__}, 1 thread, {count} pictures of {SIDE} x {SIDE}; SSIM to {apart:.1g}")
    steps = {
        "SSIM": lambda: ssim(a, b),
        "SSIM, scikit-image": lambda: [skimage_ssim(x, y) for x, y in zip(noisy, crops, strict=True)],
        "SSIM, torchmetrics": lambda: structural_similarity_index_measure(a, b, data_range=1.0),
        "PSNR and SSIM, as evaluated": lambda: measures.of_pictures(pictures, references),
        "usage of 16,384 entries": use,
        "usage, perplexity and queue of a split": lambda: (counts.compute(), recent.compute()),
        "VQGAN f16, encode and decode": encode_and_decode,
    }
    seconds = {name: min(times) for name, times in cpu_seconds(steps, arguments.rounds).items()}
    for name, value in seconds.items():
        print(f"  {name:40} {1e3 * value / count:10.3f} ms a picture")
    model_time = seconds["VQGAN f16, encode and decode"]
    measuring = seconds["PSNR and SSIM, as evaluated"] + seconds["usage of 16,384 entries"]
    ratios = {
        "SSIM / scikit-image's": (seconds["SSIM"] / seconds["SSIM, scikit-image"], SSIM_GOAL),
        "usage / whole evaluation": (
            seconds["usage of 16,384 entries"] / (model_time + measuring),
            USAGE_GOAL,
        ),
        "PSNR, SSIM and usage / encode and decode": (measuring / model_time, WHOLE_GOAL),
    }
    for name, (ratio, goal) in ratios.items():
        print(f"  {name:44} {ratio:8.4f}   goal {goal}: {'reached' if ratio <= goal else 'MISSED'}")
    if any(ratio > goal for ratio, goal in ratios.values()):
        raise SystemExit("a goal is missed")


if __name__ == "__main__":
    main()
