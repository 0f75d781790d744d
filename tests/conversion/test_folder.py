"""Whatever stops a conversion: nobody's files are lost, no half tokenizer loads, and it can start again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vistok import SimpleCNNConfig, VQConfig, VQModelHF
from vistok.conversion.folder import check_folder, write_folder

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}


def made(image_size: int) -> VQModelHF:
    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    return VQModelHF(VQConfig(codebook_size=8, codebook_dim=4, image_size=image_size, network=network))


@pytest.fixture(scope="module")
def model() -> VQModelHF:
    return made(32)


@pytest.fixture(scope="module")
def other() -> VQModelHF:
    return made(64)


def write(model: VQModelHF, folder: Path) -> None:
    check_folder(folder)
    write_folder(model, folder, "name", {"Origin": "here"})


def is_whole(folder: Path, model: VQModelHF) -> bool:
    loaded = VQModelHF.from_pretrained(folder)
    same = all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    return same and loaded.config.image_size == model.config.image_size


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "preprocessor_config.json"])
def test_files_that_only_look_like_a_tokenizers_are_kept(tmp_path, model, name):
    (tmp_path / ".git").mkdir()
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ValueError, match=rf"not of a vistok tokenizer \({name}\): choose a new folder"):
        write(model, tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"
    (tmp_path / name).unlink()
    write(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, ".git"}


def test_what_a_killed_conversion_left_is_written_over(tmp_path, model):
    (tmp_path / ".tmp-convert").mkdir()
    for folder in (tmp_path, tmp_path / ".tmp-convert"):
        (folder / "model.safetensors").write_bytes(b"half")
    write(model, tmp_path)
    assert is_whole(tmp_path, model)
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize("moved", range(len(FILES)))
@pytest.mark.parametrize("before", [True, False])
def test_stopped_between_files_it_can_be_started_again(tmp_path, model, other, monkeypatch, before, moved):
    if before:
        write(other, tmp_path)
    left, replace = [0] * moved, Path.replace

    def stop(self, target):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                write(model, tmp_path)
            with pytest.raises((ValueError, OSError)):
                VQModelHF.from_pretrained(tmp_path)
    write(model, tmp_path)
    assert is_whole(tmp_path, model)
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_one_that_was_killed_holds_nobody_up(tmp_path, model):
    program = (
        "import os, pathlib, signal, sys\n"
        "from vistok.conversion.folder import _alone\n"
        "with _alone(pathlib.Path(sys.argv[1])):\n"
        "    print('within', flush=True)\n"
        "    signal.pause()\n"
    )
    (tmp_path / ".tmp-convert").mkdir()
    command = [sys.executable, "-c", program, str(tmp_path / ".tmp-convert")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "within\n"
        with pytest.raises(ValueError, match="^Could not write to .*: another conversion is writing there"):
            write(model, tmp_path)
        os.kill(process.pid, signal.SIGKILL)
    write(model, tmp_path)
    assert is_whole(tmp_path, model)


def test_two_do_not_write_to_one_folder_at_once(tmp_path, model, other, monkeypatch):
    save = VQModelHF.save_pretrained

    def second(self, folder, **kwargs):
        save(self, folder, **kwargs)
        monkeypatch.setattr(VQModelHF, "save_pretrained", save)
        with pytest.raises(ValueError, match="another conversion is writing there"):
            write(other, tmp_path / "out")

    monkeypatch.setattr(VQModelHF, "save_pretrained", second)
    write(model, tmp_path / "out")
    assert is_whole(tmp_path / "out", model)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
