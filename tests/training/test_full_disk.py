"""A disk that fills up at any write leaves the last checkpoint whole: a real file system of a few KB."""

import json
import subprocess

import pytest
from accelerate.state import AcceleratorState

from vistok.files import WriteError
from vistok.training import Trainer, TrainingConfig
from vistok.training.checkpoints import CheckpointError, latest_checkpoint


def train(folder, **changes) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = {
        "tokenizer": {
            "model_type": "vistok_ema_vq",
            "codebook_size": 64,
            "codebook_dim": 4,
            "image_size": 32,
            "network": {"model_type": "vistok_simple_cnn", "hidden_channels": 8},
        },
        "output_dir": str(folder),
        "max_train_steps": 4,
        "train_batch_size": 2,
        "checkpointing_steps": 2,
        "checkpoints_total_limit": 1,
        "validation_steps": 2,
        "num_validation_images": 1,
        "max_validation_samples": 2,
        "max_eval_samples": 2,
        "logging_steps": 1,
        "report_to": "none",
    }
    Trainer(TrainingConfig(**{**settings, **changes})).train()


def outcome(folder) -> tuple[list[dict], bytes]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    values = [{k: v for k, v in line.items() if not k.startswith("performance/")} for line in lines]
    return values, (folder / "model.safetensors").read_bytes()


@pytest.fixture
def disk(tmp_path):
    """Makes `tmp_path/disk` a file system of so many bytes, and changes its size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(size: int, remount: bool = False):
        options = f"{'remount,' if remount else ''}size={size}"
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if mount.returncode:
            pytest.skip(f"cannot mount a file system here: {mount.stderr.strip()}")
        return folder

    yield resize
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.mark.parametrize("share", [0.001, 0.02, 0.2, 0.4, 0.45, 0.6, 0.8, 0.95, 1.05])
def test_a_full_disk_costs_one_interval_and_one_line(disk, whole, share):
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    run = disk(int(share * needed)) / "run"
    with pytest.raises((CheckpointError, WriteError, OSError)) as error:
        train(run)
    assert "\n" not in str(error.value)
    assert str(run) in str(error.value)
    saved = latest_checkpoint(run)
    logged = len([1 for line in (run / "log.jsonl").read_text().splitlines() if '"loss"' in line])
    assert logged <= 2 + (0 if saved is None else int(saved.name.removeprefix("checkpoint-")))
    if "/checkpoint-" in str(error.value):
        before = "there is no checkpoint before" if saved is None else f"last good checkpoint is {saved}"
        assert before in str(error.value)
    disk(2**26, remount=True)
    train(run, resume_from_checkpoint="latest")
    assert outcome(run) == outcome(whole)
    assert not list(run.glob(".tmp-*"))
