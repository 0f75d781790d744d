"""A run that is killed and resumed is the run that was never killed: real processes and kills, equal bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vistok.training import Trainer, TrainingConfig

ROOT = Path(__file__).parents[2]

TOKENIZER = {
    "model_type": "vistok_vq",
    "codebook_size": 16,
    "codebook_dim": 4,
    "image_size": 32,
    "network": {"model_type": "vistok_simple_cnn", "hidden_channels": 8},
}


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0)])
def test_killed_and_resumed_equals_uninterrupted(processes, workers):
    command = [sys.executable, str(ROOT / "scripts/benchmarks/training_kills.py"), "--kills", "2"]
    command += ["--processes", str(processes), "--workers", str(workers), "--steps", "80"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 kills" in result.stdout and "weights equal: True" in result.stdout


def test_what_does_not_fit_the_checkpoint_is_refused(tmp_path):
    settings = {
        "tokenizer": TOKENIZER,
        "output_dir": str(tmp_path),
        "max_train_steps": 3,
        "train_batch_size": 2,
        "max_eval_samples": 2,
        "num_validation_images": 1,
        "report_to": "none",
    }
    latest = {"resume_from_checkpoint": "latest"}
    Trainer(TrainingConfig(**settings)).train()
    for changes, named in (
        ({}, "holds checkpoints of an earlier run"),
        ({**latest, "seed": 1}, "made with seed 0, this run has 1"),
        ({**latest, "tokenizer": {**TOKENIZER, "codebook_size": 32}}, "codebook_size"),
        ({**latest, "train_batch_size": 4}, "train_batch_size"),
        ({"resume_from_checkpoint": "checkpoint-7"}, "checkpoint-7 is not a complete checkpoint"),
    ):
        with pytest.raises(ValueError, match=named) as error:
            Trainer(TrainingConfig(**{**settings, **changes}))
        assert "\n" not in str(error.value)
