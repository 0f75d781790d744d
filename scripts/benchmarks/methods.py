"""Every method on the same pictures, with the same network and the same budget, in one table.

    python scripts/benchmarks/methods.py --dataset_name ../shared/data/tiny-imagenet [--methods FSQ VQ]
        [--sizes 1k 16k] [--output_dir outputs/methods] [--json rows.json]

Each run is `vistok train` in a folder of its own under `--output_dir`; one that is finished is read and not
repeated, so that an interrupted table goes on. Images a second are those of the median training step.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from vistok.training import Trainer, TrainingConfig

SIZES = {"1k": 1024, "16k": 16384}


def _table(method: str, **fields: object) -> dict[str, dict]:
    """The settings by size of a method with a table of entries."""
    common = {"model_type": f"vistok_{method}", "codebook_dim": 8}
    return {size: {**common, "codebook_size": entries, **fields} for size, entries in SIZES.items()}


def _levels(method: str) -> dict[str, dict]:
    levels = {"1k": [8, 5, 5, 5], "16k": [8, 8, 8, 6, 5]}
    return {size: {"model_type": f"vistok_{method}", "levels": levels[size]} for size in SIZES}


def _bits(method: str, **fields: object) -> dict[str, dict]:
    bits = {"1k": 10, "16k": 14}
    return {size: {"model_type": f"vistok_{method}", "num_bits": bits[size], **fields} for size in SIZES}


# Method -> size -> settings of the tokenizer; what is not said is the default.
METHODS = {
    "FSQ": _levels("fsq"),
    "SFSQ": _levels("sfsq"),
    "LFQ": _bits("lfq", normalize=True, entropy_temperature=0.3),
    "BSQ": _bits("bsq", entropy_temperature=0.03),
    "VQ": _table("vq"),
    "VQ, normalized": _table("vq", normalize=True),
    "VQ, k-means": _table("vq", initialization="kmeans"),
    "VQ, entropy": _table("vq", normalize=True, entropy_weight=0.02),
    "VQ, rotation": _table("vq", gradient="rotation"),
    "EMAVQ": _table("ema_vq"),
    # Without its 16k: 16,384 logits a token cost 70 times the rest of a training step.
    "GumbelVQ": {"1k": _table("gumbel_vq", kl_weight=0)["1k"]},
    "SimVQ": _table("simvq"),
    "IBQ": _table("ibq", normalize=True, entropy_temperature=0.03),
    "OptVQ": _table("optvq"),
    "Continuous": {"1k": {"model_type": "vistok_continuous"}},  # the ceiling; it has no entries
}
ANNEALED = {"vistok_gumbel_vq": "anneal_steps"}  # the fields that count steps: all of the budget


class TimedTrainer(Trainer):
    """A trainer that keeps the seconds of its steps."""

    def __init__(self, config: TrainingConfig):
        self.step_seconds: list[float] = []
        super().__init__(config)

    def training_step(self, batches):
        """See `Trainer`."""
        begin = time.perf_counter()
        step = super().training_step(batches)
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self.step_seconds.append(time.perf_counter() - begin)
        return step


def settings(method: str, size: str, arguments: argparse.Namespace) -> dict:
    """The settings of a run as a `TrainingConfig` takes them, but for its folder."""
    tokenizer = dict(METHODS[method][size])
    if tokenizer["model_type"] in ANNEALED:
        tokenizer[ANNEALED[tokenizer["model_type"]]] = arguments.max_train_steps
    network = {"model_type": "vistok_simple_cnn", "hidden_channels": arguments.hidden_channels}
    return {
        "tokenizer": {**tokenizer, "image_size": arguments.image_size, "network": network},
        "dataset_name": arguments.dataset_name,
        "max_train_steps": arguments.max_train_steps,
        "train_batch_size": arguments.train_batch_size,
        "learning_rate": arguments.learning_rate,
        "lr_warmup_steps": arguments.lr_warmup_steps,
        "max_eval_samples": arguments.max_eval_samples,
        "seed": arguments.seed,
        "checkpointing_steps": arguments.max_train_steps,
        "checkpoints_total_limit": 1,
        "validation_steps": arguments.max_train_steps,
        "report_to": "none",
    }


def run(method: str, size: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Trains and evaluates a method, or reads what it scored before: a row of the table.

    Args:
        method: Of `METHODS`.
        size: Of `SIZES`.
        arguments: The command's flags.
    """
    values = settings(method, size, arguments)
    folder = arguments.output_dir / f"{method}-{size}".lower().replace(", ", "-")
    if folder.exists():
        row = json.loads((folder / "row.json").read_text(encoding="utf-8"))
        if row["settings"] != values:
            sys.exit(f"{folder} holds a run with other settings; take another --output_dir, or delete it")
        return row
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    begin, load = time.perf_counter(), os.getloadavg()[0]
    trainer = TimedTrainer(TrainingConfig(output_dir=str(unfinished), **values))
    model = trainer.train()
    seconds = time.perf_counter() - begin
    results = json.loads((unfinished / "eval_results.json").read_text(encoding="utf-8"))
    row = {
        "method": method,
        "size": size,
        "entries": model.codebook_size or None,  # none without tokens
        **results["metrics"],
        "images_per_second": arguments.train_batch_size / statistics.median(trainer.step_seconds),
        "seconds": seconds,
        "load_average": load,
        "threads": torch.get_num_threads(),
        "device": str(trainer.accelerator.device),
        "settings": values,
        "protocol": results["protocol"],
    }
    (unfinished / "row.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    unfinished.rename(folder)
    return row


COLUMNS = {
    "method": ("method", "{}"),
    "entries": ("entries", "{:,}"),
    "PSNR": ("psnr", "{:.2f}"),
    "SSIM": ("ssim", "{:.4f}"),
    "usage": ("codebook_usage", "{:.1%}"),
    "perplexity": ("codebook_perplexity", "{:.0f}"),
    "images/s": ("images_per_second", "{:.0f}"),
    "seconds": ("seconds", "{:.0f}"),
}


def as_markdown(rows: list[dict[str, object]]) -> str:
    """The rows as a table; what a method does not have is a dash."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---{'|---:' * (len(COLUMNS) - 1)}|"]
    for row in rows:
        cells = ("-" if row.get(key) is None else text.format(row[key]) for key, text in COLUMNS.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is asked for and not finished, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset_name", required=True, help="as for vistok train")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/methods"), help="folder of the runs")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--hidden_channels", type=int, default=64, help="of SimpleCNN")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--max_train_steps", type=int, default=700)
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--lr_warmup_steps", type=int, default=50)
    parser.add_argument("--max_eval_samples", type=int, default=1000, help="validation pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    rows = [
        run(method, size, arguments)
        for size in arguments.sizes
        for method in arguments.methods
        if size in METHODS[method]
    ]
    protocol = rows[0]["protocol"]
    print(
        f"{protocol['dataset']} at {arguments.image_size} x {arguments.image_size}, SimpleCNN with "
        f"{arguments.hidden_channels} channels, {arguments.max_train_steps} steps of "
        f"{arguments.train_batch_size} pictures, learning rate {arguments.learning_rate:g}, seed "
        f"{arguments.seed}; {protocol['pictures']} pictures of {protocol['split']}; torch "
        f"{protocol['versions']['torch']}, {rows[0]['device']}, {rows[0]['threads']} thread(s)\n"
    )
    print(as_markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
