"""Checkpoints appear whole or not at all."""

import json
import os

import pytest
from accelerate import Accelerator

from vistok.training import checkpoints
from vistok.training.checkpoints import CheckpointError


def save(folder, step, size=10):
    return checkpoints.save_checkpoint(
        Accelerator(cpu=True),
        folder,
        step,
        lambda path: (path / "weights").write_bytes(b"x" * size),
        {"step": step},
    )


def test_latest_is_by_number_not_by_clock(tmp_path):
    for step in (2, 10, 9):
        path = save(tmp_path, step)
        os.utime(path, (step * -1000 + 10**9,) * 2)
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint-10"
    assert checkpoints.load_state(tmp_path / "checkpoint-10") == {"step": 10}


def test_an_incomplete_checkpoint_is_never_the_latest(tmp_path):
    save(tmp_path, 1)
    for step, damage in ((2, "truncate"), (3, "unmark"), (4, "garble")):
        path = save(tmp_path, step)
        if damage == "truncate":
            (path / "weights").write_bytes(b"x")
        elif damage == "unmark":
            (path / "complete.json").unlink()
        else:
            (path / "complete.json").write_text("{")
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint-1"
    with pytest.raises(CheckpointError, match="checkpoint-2 is not a complete checkpoint"):
        checkpoints.load_state(tmp_path / "checkpoint-2")


def test_a_failed_write_leaves_the_last_one_and_says_so(tmp_path):
    save(tmp_path, 1)

    def fail(path):
        (path / "weights").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        CheckpointError, match=r"No space left on device.*last good checkpoint is .*checkpoint-1, of 0.0 MB"
    ) as error:
        checkpoints.save_checkpoint(Accelerator(cpu=True), tmp_path, 2, fail, {})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_rotation_keeps_the_newest(tmp_path):
    for step in (1, 2, 10, 11):
        save(tmp_path, step)
    checkpoints.keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]


def test_writing_again_replaces(tmp_path):
    save(tmp_path, 1, size=10)
    save(tmp_path, 1, size=20)
    assert json.loads((tmp_path / "checkpoint-1" / "complete.json").read_text())["files"] == {"weights": 20}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
