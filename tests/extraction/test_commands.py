"""The commands as a user types them."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vistok.cli import main


@pytest.fixture
def extracted(model, pictures, tmp_path, monkeypatch):
    """A folder of tokens made by the command."""
    monkeypatch.chdir(tmp_path)
    words = ["--model", model.name_or_path, "--dataset_name", str(pictures), "--output_dir", "tokens",
             "--views", "flip", "--shard_size", "30", "--batch_size", "8"]  # fmt: skip
    assert main(["extract", *words]) == 0
    return tmp_path


def test_extract_verify_export_decode(extracted, capsys):
    assert main(["verify", "tokens", "--samples", "20"]) == 0
    shown = capsys.readouterr().out
    assert "5 shards, 101 pictures, 3,232 tokens: as recorded" in shown
    assert "differ" in shown
    assert main(["export", "llamagen", "tokens", "--output_dir", "exported"]) == 0
    assert "set 101 in its dataset/imagenet.py" in capsys.readouterr().out
    assert main(["decode", "tokens", "--output", "a.npz", "--format", "npz", "--limit", "4"]) == 0
    with np.load("a.npz") as file:
        assert file["arr_0"].shape == (4, 16, 16, 3)


def test_damage_is_listed_and_the_status_is_1(extracted, capsys):
    (extracted / "tokens" / "data" / "train-00002-of-00005.json").unlink()
    assert main(["verify", "tokens", "--samples", "0"]) == 1
    shown = capsys.readouterr()
    assert "train-00002-of-00005.json is missing" in shown.out.splitlines()[0]
    assert (
        shown.err == "vistok verify: found 1 problem: delete the shards named, and extract again as before\n"
    )
    words = [sys.executable, "-m", "vistok.extraction", "verify", "tokens", "--samples", "0"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    assert "train-00002-of-00005.json is missing" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "nothing"], "nothing holds no tokens: there is no plan.json"),
        (["decode", "nothing", "--output", "out"], "holds no tokens"),
        (["export", "jsonl", "nothing", "--output_dir", "out"], "holds no tokens"),
        (["extract", "--buckets", "256"], "buckets must be HEIGHTxWIDTH, such as 256x256, got '256'"),
        (["extract", "--views", "ten_crop", "--buckets", "8x8"], "not ten_crop"),
        (["extract", "--keep_columns", "url"], "has no column 'url'"),
        (["extract", "--buckets", "8x8", "--crop", "adm_crop"], "--crop says nothing beside --buckets"),
        (["extract", "--crop_range", "1.2"], "--crop_range says nothing without --views ten_crop"),
        (["extract", "--resolution", "0"], "resolution must be at least 1 pixel, got 0"),
        (["extract", "--device", "nowhere"], "--device nowhere: "),
        (["extract", "--worker_index", "3", "--num_workers", "2"], "below num_workers 2, got 3"),
    ],
)
def test_a_mistake_is_one_line(words, said, model, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if words[0] == "extract":
        words = [
            *words,
            "--model",
            model.name_or_path,
            "--dataset_name",
            str(pictures),
            "--output_dir",
            "out",
        ]
    assert main(words) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_verify_reads_the_configuration_and_the_column_of_the_plan(model, jpegs, tmp_path, capsys):
    for name, files in (("a", jpegs[:20]), ("b", jpegs[20:40])):
        column = [{"bytes": data, "path": None} for data in files]
        other = [{"bytes": data, "path": None} for data in jpegs[40:60]]
        (tmp_path / "pictures" / name).mkdir(parents=True)
        pq.write_table(
            pa.table({"image": column, "other": other}), tmp_path / "pictures" / name / "train-0.parquet"
        )
    (tmp_path / "pictures" / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: a/train-0.parquet\n"
        "- config_name: b\n  data_files: b/train-0.parquet\n---\n"
    )
    words = ["--dataset_name", str(tmp_path / "pictures"), "--dataset_config_name", "b"]
    words += ["--image_column", "other", "--output_dir", str(tmp_path / "out")]
    assert main(["extract", "--model", model.name_or_path, *words, "--batch_size", "8"]) == 0
    assert main(["verify", str(tmp_path / "out"), "--samples", "20"]) == 0
    assert "tokens encoded again: 0 differ" in capsys.readouterr().out
    words[words.index("b")] = "a"
    assert main(["extract", "--model", model.name_or_path, *words, "--batch_size", "8"]) == 1
    assert 'dataset.config_name was "b", now it is "a"' in capsys.readouterr().err


def test_a_tokenizer_that_moved_is_said(extracted, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["verify", "tokens", "--dataset_name", "elsewhere/pictures/gone"]) == 1
    assert "--samples 0" in capsys.readouterr().err


def test_processes_of_accelerate_share_the_work(model, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    begun = []
    from vistok.extraction.leases import Leases

    claim = Leases.claim
    monkeypatch.setattr(Leases, "claim", lambda self, name: begun.append(name) or claim(self, name))
    words = ["--model", model.name_or_path, "--dataset_name", str(pictures), "--shard_size", "25"]
    assert main(["extract", *words, "--output_dir", str(tmp_path / "out"), "--batch_size", "8"]) == 0
    # The second process begins in the middle, and goes on to what the first would have done.
    assert begun[:2] == ["train-00003-of-00006", "train-00004-of-00006"]
    assert begun[3:6] == ["train-00000-of-00006", "train-00001-of-00006", "train-00002-of-00006"]
