"""The command as a stranger meets it: a mistake is one line that says what to do, nothing is half-written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard

from vistok.cli import build_parser, main

SMALL = [
    "--tokenizer.image_size", "32", "--tokenizer.network.hidden_channels", "8", "--max_train_steps", "2",
    "--train_batch_size", "2", "--max_eval_samples", "2", "--num_validation_images", "1",
    "--report_to", "none",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quickstar"], "did you mean 'quickstart'"),
        (["--max_train_steps", "x"], "max_train_steps must be int"),
        (["--tokenizer.image_size", "50"], "nearest that fit: 48 or 52"),
        (["--tokenizer.image_size", "8"], "at least 11"),
        (["--dataset_name", "no/such/folder"], "no/such/folder"),
        (["--dataset_name", "empty"], "empty"),
        (["--dataset_name", "texts"], "image"),
        (["--validation_split", "holdout"], "train, validation"),
        (["--output_dir", "/dev/null"], "output_dir /dev/null"),
        (["--resume_from_checkpoint", "checkpoint-3"], "checkpoint-3"),
        (["--mixed_precision", "fp16"], "fp16"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(here, capsys, words, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    Dataset.from_dict({"text": ["hello"]}).to_parquet(here / "texts" / "train.parquet")
    recipe = [] if words[0] == "quickstar" else ["quickstart"]
    flags = SMALL + (["--output_dir", "out"] if "--output_dir" not in words else [])
    assert main(["train", *recipe, *flags, *words]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("vistok train: ")
    assert said in lines[0]
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--learning_rat", "1"], "did you mean --learning_rate?"),
        (["train", "--learning_rate"], "expected one argument"),
        (["compare", "--output_dir", "x"], "RESULTS"),
        (["tokenize"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert said in text


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path):
    # A limit on the size of a file stands for a full disk: the first checkpoint fits, a larger file does not.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1)); "
        "from vistok.cli import main; sys.exit(main(sys.argv[2:]))"
    )
    command = ["train", "quickstart", *SMALL, "--checkpointing_steps", "1", "--output_dir", "out"]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }

    def run(limit, *flags):
        return subprocess.run(
            [sys.executable, "-c", code, str(limit), *command, *flags],
            cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=200,
        )  # fmt: skip

    full = run(20_000)
    last = full.stderr.strip().splitlines()[-1]
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "Could not write" in last
    assert "checkpoint-1" in last
    assert not [path.name for path in (tmp_path / "out").iterdir() if "checkpoint" in path.name]
    again = run(10**9, "--resume_from_checkpoint", "latest")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_train_then_evaluate_then_load(here, capsys):
    assert main(["train", "quickstart", *SMALL, "--output_dir", "out"]) == 0
    assert "Wrote the tokenizer to out" in capsys.readouterr().out
    words = ["--model", "out", "--dataset_name", "samples", "--max_samples", "2", "--output_dir", "results"]
    words += ["--metrics", "l1", "psnr", "ssim"]  # LPIPS would ask the Hub for its weights
    assert main(["evaluate", *words]) == 0
    assert (here / "results" / "eval_results.json").exists()
    found = {one.metric_type for one in ModelCard.load(here / "out" / "README.md").data.eval_results}
    assert {"psnr", "ssim", "codebook_usage", "bits_per_pixel"} <= found


def test_demo_without_gradio_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == 'vistok demo: The page needs gradio: pip install "vistok[space]"\n'


def test_demo_of_no_tokenizer_is_one_line(here, capsys, hub):
    (here / "empty").mkdir()
    for model in ("empty", "no/such", "no such"):
        assert main(["demo", "--model", model]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("vistok demo: ")
        assert model in line


def test_every_flag_has_a_description():
    for parser in build_parser()._subparsers._group_actions[0].choices.values():
        assert all(action.help for action in parser._actions)
