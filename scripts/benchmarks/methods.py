"""Every method on the same pictures, with the same network and the same budget, in one table.

    python scripts/benchmarks/methods.py --dataset_name ../shared/data/tiny-imagenet [--rows FSQ VQ]
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


def settings(tokenizer: dict, network: dict, arguments: argparse.Namespace) -> dict:
    """The settings of a run as a `TrainingConfig` takes them, but for its folder."""
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


def run(name: str, values: dict, folder: Path) -> dict[str, object]:
    """Trains and evaluates, or reads what a finished run scored: a row of a table.

    Args:
        name: What the row is of.
        values: The `settings`.
        folder: Of the run.
    """
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
    log = [json.loads(line) for line in (unfinished / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [line for line in log if "loss" in line and "psnr" in line]
    row = {
        "name": name,
        "entries": model.codebook_size or None,  # none without tokens
        **results["metrics"],
        "parameters_in_all": sum(parameter.numel() for parameter in model.parameters()),
        **{
            f"{key}_{when}": statistics.fmean(line[key] for line in lines)
            for key in ("loss", "psnr")
            for when, lines in (("begin", trained[:5]), ("end", trained[-5:]))
        },
        "images_per_second": values["train_batch_size"] / statistics.median(trainer.step_seconds),
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
    "method": ("name", "{}"),
    "entries": ("entries", "{:,}"),
    "PSNR": ("psnr", "{:.2f}"),
    "SSIM": ("ssim", "{:.4f}"),
    "usage": ("codebook_usage", "{:.1%}"),
    "perplexity": ("codebook_perplexity", "{:.0f}"),
    "images/s": ("images_per_second", "{:.0f}"),
    "seconds": ("seconds", "{:.0f}"),
}


def as_markdown(rows: list[dict[str, object]], columns: dict[str, tuple[str, str]]) -> str:
    """The rows as a table; what a row does not have is a dash.

    Args:
        rows: As `run` returns them.
        columns: Heading -> the key of the row and how its value is written.
    """
    lines = [f"| {' | '.join(columns)} |", f"|---{'|---:' * (len(columns) - 1)}|"]
    for row in rows:
        cells = ("-" if row.get(key) is None else text.format(row[key]) for key, text in columns.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(description: str, folder: str, steps: int, names: list[str]) -> argparse.Namespace:
    """The flags that tables of training runs share, parsed, and the process set up.

    Args:
        description: For `--help`.
        folder: The default of `--output_dir`.
        steps: The default of `--max_train_steps`.
        names: What the rows can be of.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset_name", required=True, help="as for vistok train")
    parser.add_argument("--output_dir", type=Path, default=Path(folder), help="folder of the runs")
    parser.add_argument("--rows", nargs="+", default=names, choices=names, metavar="NAME", help=f"of {names}")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="of codebooks")
    parser.add_argument("--hidden_channels", type=int, default=64, help="of SimpleCNN")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--max_train_steps", type=int, default=steps)
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
    return arguments


def show(rows: list[dict[str, object]], columns: dict[str, tuple[str, str]], arguments: argparse.Namespace):
    """Prints the protocol and the table, and writes the rows where `--json` says."""
    protocol = rows[0]["protocol"]
    print(
        f"{protocol['dataset']} at {arguments.image_size} x {arguments.image_size}, "
        f"{arguments.max_train_steps} steps of {arguments.train_batch_size} pictures, learning rate "
        f"{arguments.learning_rate:g}, seed {arguments.seed}; {protocol['pictures']} pictures of "
        f"{protocol['split']}; torch {protocol['versions']['torch']}, {rows[0]['device']}, "
        f"{rows[0]['threads']} thread(s)\n"
    )
    print(as_markdown(rows, columns))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Runs what is asked for and not finished, and prints the table."""
    arguments = parse(__doc__, "outputs/methods", 700, list(METHODS))
    rows = []
    for size in arguments.sizes:
        for method in arguments.rows:
            if size not in METHODS[method]:
                continue
            tokenizer = dict(METHODS[method][size])
            if tokenizer["model_type"] in ANNEALED:
                tokenizer[ANNEALED[tokenizer["model_type"]]] = arguments.max_train_steps
            network = {"model_type": "vistok_simple_cnn", "hidden_channels": arguments.hidden_channels}
            folder = arguments.output_dir / f"{method}-{size}".lower().replace(", ", "-")
            rows.append(run(method, settings(tokenizer, network, arguments), folder))
    show(rows, COLUMNS, arguments)


if __name__ == "__main__":
    main()
