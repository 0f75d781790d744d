"""Kills a training run again and again, resumes it each time, and compares it with one that nobody killed.

    python scripts/benchmarks/training_kills.py [--kills 30] [--processes 1 2] [--workers 0] [--seed 0]

The run has all that keeps state: a residual of EMA codebooks with k-means, revival and dropout, a
discriminator with LeCAM, accumulated micro-batches, averaged weights. Half of the kills come at a random
moment, half while a checkpoint is being written; of several processes one dies, or all do. Compared are every
value in the log, but for the machine's speed, and the finished weights, bit for bit. It ends with an error
where they differ, where a run does not resume, or where a kill costs more than one checkpoint interval.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

INTERVAL = 10  # steps between checkpoints
RECIPE = f"""
tokenizer:
  model_type: vistok_ema_vq
  codebook_size: 256
  codebook_dim: 4
  decay: 0.9
  revival_threshold: 0.3
  initialization: kmeans
  num_codebooks: 2
  codebook_layout: residual
  quantizer_dropout: 0.5
  image_size: 32
  network: {{model_type: vistok_simple_cnn, hidden_channels: 16}}
dataset_name: samples
train_batch_size: 4
gradient_accumulation_steps: 2
learning_rate: 1e-3
adversarial_weight: 0.1
adversarial_start_step: 20
discriminator_channels: 16
discriminator_layers: 2
lecam_weight: 0.01
checkpointing_steps: {INTERVAL}
checkpoints_total_limit: 2
validation_steps: 15
max_validation_samples: 8
max_eval_samples: 8
num_validation_images: 2
logging_steps: 1
report_to: none
resume_from_checkpoint: latest
"""


def start(recipe: Path, folder: Path, processes: int, workers: int, steps: int) -> subprocess.Popen:
    """Starts the run, or goes on with it."""
    program = ["-m", "vistok.cli", "train"]
    launcher = [sys.executable]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(processes)]
    flags = ["--output_dir", str(folder), "--dataloader_num_workers", str(workers)]
    flags += ["--max_train_steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    with open(folder.with_suffix(".errors"), "w", encoding="utf-8") as errors:
        return subprocess.Popen(
            [*launcher, *program, str(recipe), *flags],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def steps_logged(folder: Path) -> int:
    """The last step in the log; 0 where there is none."""
    try:
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except ValueError:  # it is being written
            continue
    return 0


def last_checkpoint(folder: Path) -> int:
    """The step of the last complete checkpoint; 0 where there is none."""
    found = [path.parent.name for path in folder.glob("checkpoint-*/complete.json")]
    return max((int(name.removeprefix("checkpoint-")) for name in found), default=0)


def kill(run: subprocess.Popen, folder: Path, processes: int, in_save: bool, draw: random.Random) -> str:
    """Waits for a moment and kills; returns what was hit, or "" where the run had ended before."""
    before = last_checkpoint(folder)
    deadline = time.monotonic() + 300
    while steps_logged(folder) <= before or (in_save and not list(folder.glob(".tmp-checkpoint-*"))):
        if run.poll() is not None:
            return ""
        if time.monotonic() > deadline:
            sys.exit(f"the run made no step in 300 s: see {folder.with_suffix('.errors')}")
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.03 if in_save else 1.5))
    victims = [run.pid]
    if processes > 1 and draw.random() < 0.5:
        children = psutil.Process(run.pid).children(recursive=True)
        victims = [draw.choice([child.pid for child in children if "train" in child.cmdline()] or [run.pid])]
    else:
        victims += [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
    for pid in victims:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    saving = bool(list(folder.glob(".tmp-checkpoint-*")))
    run.wait(timeout=120)  # torchrun ends the other processes of one that died
    return "in a save" if saving else "in a step"


def values_of(folder: Path) -> list[dict[str, float]]:
    """The log without the machine's speed."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith("performance/")}
        for line in lines
    ]


def finish(run: subprocess.Popen, folder: Path) -> None:
    """Waits for the end of a run."""
    if run.wait(timeout=1800):
        text = folder.with_suffix(".errors").read_text(encoding="utf-8")
        sys.exit(f"{folder.name}: a run failed with status {run.returncode}:\n{text[-2000:]}")


def weights_of(folder: Path) -> str:
    """The SHA-256 of the finished weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def check(processes: int, arguments: argparse.Namespace, folder: Path) -> None:
    """Kills and resumes a run of so many processes, and prints what came of it."""
    draw = random.Random(f"{arguments.seed}/{processes}/{arguments.workers}")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    whole, broken = folder / "whole", folder / "broken"
    steps = arguments.steps or arguments.kills * 40
    begin = time.monotonic()
    finish(start(recipe, whole, processes, arguments.workers, steps), whole)
    hits: dict[str, int] = {}
    lost = []
    while len(lost) < arguments.kills:
        run = start(recipe, broken, processes, arguments.workers, steps)
        hit = kill(run, broken, processes, in_save=len(lost) % 2 == 1, draw=draw)
        if not hit:
            sys.exit(f"the run ended after {len(lost)} kills: give more --steps, or look at {folder}")
        hits[hit] = hits.get(hit, 0) + 1
        lost.append(steps_logged(broken) - last_checkpoint(broken))
        print(f"  kill {len(lost)} {hit}: {lost[-1]} steps after a checkpoint", flush=True)
    finish(start(recipe, broken, processes, arguments.workers, steps), broken)
    same_log = values_of(whole) == values_of(broken)
    same_weights = weights_of(whole) == weights_of(broken)
    print(
        f"{processes} processes, {arguments.workers} workers: {len(lost)} kills ({hits}), at most "
        f"{max(lost)} steps lost of an interval of {INTERVAL}, log of {len(values_of(broken))} lines equal: "
        f"{same_log}, weights equal: {same_weights}, {time.monotonic() - begin:.0f} s",
        flush=True,
    )
    if not (same_log and same_weights and max(lost) <= INTERVAL):
        sys.exit("the killed run is not the one that nobody killed")


def main() -> None:
    """Parses the flags and checks each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, default=0, help="data workers of each process")
    parser.add_argument("--steps", type=int, help="of the run; by default 40 for each kill")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for processes in arguments.processes:
        with tempfile.TemporaryDirectory(prefix="vistok-kills-") as folder:
            check(processes, arguments, Path(folder))


if __name__ == "__main__":
    main()
