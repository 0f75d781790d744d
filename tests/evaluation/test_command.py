"""`vistok evaluate` and `vistok compare` as somebody uses them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from vistok import FSQConfig, VQModelHF
from vistok.cli import main
from vistok.data.samples import open_samples

NETWORK = {"model_type": "vistok_simple_cnn", "hidden_channels": 8}
ROOT = Path(__file__).parents[2]
PLAIN = ["--metrics", "l1", "mse", "psnr", "ssim"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three small tokenizers and a split of 12 pictures, of which the sixth cannot be read."""
    folder = tmp_path_factory.mktemp("command")
    for i, (name, levels) in enumerate({"fsq-seed0": [8, 5], "fsq-seed1": [8, 5], "wide": [8, 8, 8]}.items()):
        torch.manual_seed(i)
        VQModelHF(FSQConfig(levels=levels, image_size=32, network=NETWORK)).save_pretrained(folder / name)
    source = open_samples("validation")
    pictures = [source.read(row).decode() for row in range(12)]
    for name, column in (
        ("good", pictures),
        ("bad", [*pictures[:5], {"bytes": b"?", "path": None}, *pictures[6:]]),
    ):
        (folder / name).mkdir()
        features = datasets.Features({"image": datasets.Image()})
        data = datasets.Dataset.from_dict({"image": column}, features=features)
        data.to_parquet(folder / name / "validation.parquet")
    return folder


def evaluate(folder, *words, data="good"):
    data = None if "--reconstructions" in words else data
    dataset = [] if data is None else ["--dataset_name", str(folder / data)]
    return main(["evaluate", *dataset, *PLAIN, *map(str, words)])


def test_several_models_and_seeds_become_tables_plots_and_sheets(folder, tmp_path, capsys):
    models = ["--model", folder / "fsq-seed0", folder / "fsq-seed1", "--model", folder / "wide"]
    assert evaluate(folder, *models, "--output_dir", tmp_path / "out") == 0
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    names = ("comparison.md", "comparison.tex", "comparison.csv", "rate_distortion.png", "codebook_use.png")
    of_models = {
        f"{m}/{f}" for m in ("fsq-seed0", "fsq-seed1", "wide") for f in ("eval_results.json", "sheet.png")
    }
    assert written == {*names, *of_models}
    assert "| fsq (2 seeds) |" in (tmp_path / "out" / "comparison.md").read_text()
    results = json.loads((tmp_path / "out" / "wide" / "eval_results.json").read_text())
    assert results["protocol"]["image_column"] == "image"  # of Parquet, held in memory
    assert (results["name"], results["protocol"]["pictures"]) == ("wide", 12)
    assert results["speed"]["encode_images_per_second"] > 0
    with Image.open(tmp_path / "out" / "wide" / "sheet.png") as sheet:
        assert sheet.width > 6 * 192 and sheet.height > 3 * 192
    said = capsys.readouterr().out
    assert "wide: l1 0." in said and "12 pictures, 32 px; center crop" in said
    parts = [str(tmp_path / "out" / name) for name in ("fsq-seed0", "fsq-seed1", "wide")]
    assert main(["compare", *parts, "--output_dir", str(tmp_path / "again")]) == 0
    for name in names[:3]:
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "out" / name).read_text()


def test_folders_of_pictures_are_measured_by_the_same_protocol(folder, tmp_path):
    # What a model reconstructs, saved as files, has the numbers of the model itself.
    from vistok.data import PictureTransform, open_dataset, ordered_batches, to_pixel_values
    from vistok.evaluation.pixel_range import to_levels

    model = VQModelHF.from_pretrained(folder / "wide").eval()
    source = open_dataset(str(folder / "good"), split="validation")
    batch = next(ordered_batches(source, PictureTransform(32), batch_size=12))
    with torch.no_grad():
        made = to_levels(model(to_pixel_values(batch["pixels"])).reconstruction).permute(0, 2, 3, 1)
    for name, pictures in (("made", made), ("originals", batch["pixels"])):
        (tmp_path / name).mkdir()
        for row, pixels in enumerate(pictures):
            Image.fromarray(pixels.numpy()).save(tmp_path / name / f"{row:02}.png")
    words = ["--reconstructions", tmp_path / "made", "--references", tmp_path / "originals"]
    assert evaluate(folder, *words, "--output_dir", tmp_path / "files", data=None) == 0
    assert evaluate(folder, "--model", folder / "wide", "--output_dir", tmp_path / "model") == 0
    of_files, of_model = (
        json.loads((tmp_path / name / "eval_results.json").read_text())["metrics"]
        for name in ("files", "model")
    )
    for name in ("l1", "mse", "psnr", "ssim"):
        assert of_files[name] == pytest.approx(of_model[name], rel=1e-6)
    assert (tmp_path / "files" / "sheet.png").exists()


def test_results_go_into_the_card(folder, tmp_path, capsys):
    VQModelHF.from_pretrained(folder / "wide").save_pretrained(tmp_path / "model")
    assert evaluate(folder, "--model", tmp_path / "model", "--update_card", "--max_samples", 3) == 0
    found = {
        one.metric_type: one for one in ModelCard.load(tmp_path / "model" / "README.md").data.eval_results
    }
    assert {"psnr", "ssim", "codebook_usage", "bits_per_pixel"} <= found.keys()
    assert found["psnr"].metric_args["pictures"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--model is missing"),
        (["--model", "M", "--reconstructions", "x", "--references", "y"], "exclude each other"),
        (["--reconstructions", "x"], "--references is missing"),
        (["--model", "M", "--metrics", "psnrr"], "metrics must be of l1, mse"),
        (["--model", "M", "--metrics", "rfid", "--inception_weights", "no.pth"], "no.pth is not there"),
        (
            ["--model", "M", "--metrics", "ms_ssim"],
            "ms_ssim needs pictures of at least 176 x 176 pixels, got 32",
        ),
        (["--model", "M", "--expected_samples", "50000"], "Expected 50,000 pictures, got 12"),
        (["--model", "M", "--resolution", "33"], "nearest that fit"),
        (["--model", "M", "M"], "is given twice"),
        (["--model", "M", "--resolution", "0"], "--resolution must be at least 1, got 0"),
        (["--model", "M", "--resolution", "-4"], "--resolution must be at least 1, got -4"),
        (["--model", "M", "--max_samples", "0"], "--max_samples must be at least 1, got 0"),
        (["--model", "M", "--batch_size", "-1"], "--batch_size must be at least 1, got -1"),
        (["--model", "M", "--references", "y"], "--references says nothing with --model"),
        *(
            (["--reconstructions", "x", "--references", "y", *words], f"{words[0]} says nothing with --recon")
            for words in (
                ["--resolution", "64"],
                ["--update_card"],
                ["--dataset_name", "samples"],
                ["--split", "train"],
                ["--image_column", "image"],
            )
        ),
        (["--model", "M", "--max_samples", "1", "--output_dir", "/dev/null"], "/dev/null"),
        (["--model", "org/fsq", "--update_card"], "org/fsq has no README.md"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, words, said):
    words = [str(folder / "wide") if word == "M" else word for word in words]
    assert evaluate(folder, *words) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line and line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("vistok evaluate: ") and said in lines[0]


def test_the_numbers_are_written_before_the_sheet_is_drawn(folder, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("no font")

    monkeypatch.setattr("vistok.evaluation.command.draw_extremes", fails)
    words = ["--model", folder / "wide", "--max_samples", 2, "--output_dir", tmp_path]
    assert evaluate(folder, *words) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["eval_results.json"]


def test_a_comparison_that_cannot_be_made_asks_for_no_room(folder, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise ValueError("nothing to draw")

    assert evaluate(folder, "--model", folder / "wide", "--max_samples", 2, "--output_dir", tmp_path) == 0
    monkeypatch.setattr("vistok.evaluation.report.draw_codebook_use", fails)
    assert main(["compare", str(tmp_path), "--output_dir", str(tmp_path / "again")]) == 1
    assert capsys.readouterr().err.endswith("vistok compare: nothing to draw\n")


def test_an_unreadable_picture_is_named_counted_and_left_out(folder, tmp_path, capsys, caplog):
    assert evaluate(folder, "--model", folder / "wide", data="bad") == 1
    assert "row 5 of split 'validation'" in capsys.readouterr().err
    words = ["--on_unreadable", "skip", "--expected_samples", "12", "--output_dir"]
    assert evaluate(folder, "--model", folder / "wide", *words, tmp_path / "bad", data="bad") == 0
    assert "row 5 of split 'validation'" in caplog.text
    protocol = json.loads((tmp_path / "bad" / "eval_results.json").read_text())["protocol"]
    assert (protocol["pictures"], protocol["unreadable_pictures"], protocol["unreadable_rows"]) == (
        11,
        1,
        [5],
    )
    assert "(1 more cannot be read)" in (tmp_path / "bad" / "comparison.md").read_text()


def test_a_full_disk_is_one_line_after_the_numbers(folder, tmp_path):
    # A limit on the size of a file stands for a full disk.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1)); "
        "from vistok.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["evaluate", "--model", folder / "wide", "--dataset_name", folder / "good", *PLAIN]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--output_dir", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "wide: l1 0." in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("vistok evaluate: Could not write to") and "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
