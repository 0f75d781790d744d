"""A run that is killed and resumed is the run that was never killed: real processes and kills, equal bits."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

STEPS = 24
RECIPE = f"""
tokenizer:
  model_type: vistok_ema_vq # averages, revival, k-means that the first checkpoint interrupts, and dropout
  codebook_size: 256
  codebook_dim: 4
  decay: 0.9
  revival_threshold: 0.3
  initialization: kmeans
  num_codebooks: 2
  codebook_layout: residual
  quantizer_dropout: 0.5
  image_size: 32
  network: {{model_type: vistok_simple_cnn, hidden_channels: 8}}
dataset_name: samples
max_train_steps: {STEPS}
train_batch_size: 4
gradient_accumulation_steps: 2
learning_rate: 1e-3
lr_warmup_steps: 4
checkpointing_steps: 3
checkpoints_total_limit: 2
validation_steps: 100
max_eval_samples: 4
num_validation_images: 2
logging_steps: 1
report_to: none
"""
# Kills the process itself at the n-th flush of a file: in the middle of writing a checkpoint.
DIE_IN_SAVE = """
import os, signal, sys
from vistok.training import checkpoints
flush, left = checkpoints._flush, [{flushes}]
def dying_flush(path):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
checkpoints._flush = dying_flush
from vistok.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(
    recipe, output_dir, *flags, code="import sys; from vistok.cli import main; sys.exit(main(sys.argv[1:]))"
):
    command = [sys.executable, "-c", code, "train", str(recipe), "--output_dir", str(output_dir), *flags]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def finish(process) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]


def kill_after(process, output_dir, checkpoint: int, extra: float) -> None:
    """Kills a run some time after a checkpoint appeared."""
    deadline = time.monotonic() + 200
    while not (output_dir / f"checkpoint-{checkpoint}").exists() and process.poll() is None:
        assert time.monotonic() < deadline, "the checkpoint never came"
        time.sleep(0.005)
    time.sleep(extra)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def fingerprint(output_dir) -> tuple[str, str]:
    weights = hashlib.sha256((output_dir / "model.safetensors").read_bytes()).hexdigest()
    return (output_dir / "log.jsonl").read_text(), weights


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, workers):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(recipe, whole, "--dataloader_num_workers", workers))
    resume = ("--dataloader_num_workers", workers, "--resume_from_checkpoint", "latest")
    draw = random.Random(workers)

    kill_after(start(recipe, broken, *resume), broken, 3, draw.uniform(0, 0.3))
    in_save = start(recipe, broken, *resume, code=DIE_IN_SAVE.format(flushes=draw.randint(1, 6)))
    in_save.communicate()
    assert in_save.returncode == -signal.SIGKILL
    assert any(path.name.startswith(".tmp-checkpoint") for path in broken.iterdir())
    kill_after(start(recipe, broken, *resume), broken, 12, draw.uniform(0, 0.3))
    finish(start(recipe, broken, *resume))

    assert fingerprint(broken) == fingerprint(whole)
    assert len(fingerprint(broken)[0].splitlines()) == STEPS
    assert not [path.name for path in broken.iterdir() if path.name.startswith(".tmp")]


def test_what_does_not_fit_the_checkpoint_is_refused(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    short = ("--max_train_steps", "3")
    finish(start(recipe, out, *short))
    for flags, named in (
        (short, "holds checkpoints of an earlier run"),
        ((*short, "--resume_from_checkpoint", "latest", "--seed", "1"), "seed"),
        ((*short, "--resume_from_checkpoint", "latest", "--tokenizer.codebook_size", "32"), "codebook_size"),
        ((*short, "--resume_from_checkpoint", "checkpoint-7"), "checkpoint-7 is not a complete checkpoint"),
    ):
        process = start(recipe, out, *flags)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 1
        assert named in errors
        assert "Traceback" not in errors
