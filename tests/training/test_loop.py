"""A short run on photographs: what it leaves, and how the loop behaves."""

import importlib.util
import itertools
import json
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import load_file

from vistok import VistokImageProcessor, VQModelHF
from vistok.training import Trainer, TrainingConfig
from vistok.training.loop import TrainingError

TOKENIZER = {
    "model_type": "vistok_vq",
    "codebook_size": 32,
    "codebook_dim": 4,
    "image_size": 32,
    "network": {"model_type": "vistok_simple_cnn", "hidden_channels": 8},
}


def config(folder, **changes) -> TrainingConfig:
    settings = {
        "tokenizer": TOKENIZER,
        "output_dir": str(folder),
        "max_train_steps": 4,
        "train_batch_size": 4,
        "learning_rate": 1e-3,
        "checkpointing_steps": 2,
        "validation_steps": 2,
        "num_validation_images": 2,
        "max_eval_samples": 6,
        "logging_steps": 1,
        "report_to": "none",
    }
    return TrainingConfig(**{**settings, **changes})


def log_of(folder) -> tuple[list[dict], list[dict]]:
    """The lines of the steps, and those of the validations."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [x for x in lines if "loss" in x], [x for x in lines if "loss" not in x]


def poison(trainer, when) -> None:
    """Makes the loss NaN at the calls of the objective for which `when(number)` is true."""
    objective, calls = trainer.objective.forward, itertools.count(1)

    def sometimes_nan(*arguments):
        factor = float("nan") if when(next(calls)) else 1.0
        return {name: term * factor for name, term in objective(*arguments).items()}

    trainer.objective.forward = sometimes_nan


@pytest.fixture(autouse=True)
def new_process_state():
    AcceleratorState._reset_state(reset_partial_state=True)  # it allows one precision in a process


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = Trainer(config(folder, report_to="tensorboard")).train()
    return folder, model


def test_the_folder_holds_all_that_a_tokenizer_needs(finished):
    folder, model = finished
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json", "model.safetensors", "preprocessor_config.json", "README.md", "eval_results.json",
        "sheet.png",
        "log.jsonl", "checkpoint-2", "checkpoint-4", "sheets", "tensorboard",
    } == names  # fmt: skip
    loaded = VQModelHF.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert VistokImageProcessor.from_pretrained(folder).size["shortest_edge"] == 32


def test_the_results_and_the_card_agree(finished):
    folder, _ = finished
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["protocol"]["pictures"] == 6
    assert {"l1", "psnr", "ssim", "codebook_usage", "codebook_perplexity"} <= set(results["metrics"])
    card = (folder / "README.md").read_text()
    assert f"| psnr | {results['metrics']['psnr']:.6g} |" in card
    assert "![](sheet.png)" in card
    with Image.open(folder / "sheet.png") as sheet:
        assert min(sheet.size) > 100


def test_the_log_has_every_step(finished):
    folder, _ = finished
    steps, validations = log_of(folder)
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    for line in steps:
        terms = line["l2"] + line["quantizer/codebook"] + line["quantizer/commitment"]
        assert line["loss"] == pytest.approx(terms)
        assert line["gradient_norm"] > 0
        assert 0 <= line["performance/data_wait_share"] <= 1
        assert line["performance/images_per_second"] * line["performance/seconds_per_step"] == pytest.approx(
            4
        )
        assert line["performance/memory_gb"] > 0.05
    assert [line["step"] for line in validations] == [2, 4]
    assert all(line["validation/psnr"] > 0 for line in validations)


def test_the_saved_weights_are_the_average(finished):
    folder, _ = finished
    saved = load_file(folder / "model.safetensors")
    average = load_file(folder / "checkpoint-4" / "ema.safetensors")
    live = load_file(folder / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(saved[name], average[f"module.{name}"]) for name in saved)
    assert not all(torch.equal(saved[name], live[name]) for name in saved)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own upload
def test_a_finished_run_is_pushed_as_one_commit(hub, tmp_path):
    run = config(tmp_path, max_train_steps=1, push_to_hub=True, hub_model_id="org/trained")
    model = Trainer(run).train()
    files = set(hub.commits("org/trained")[-1].added)
    assert files >= {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "eval_results.json",
        "sheet.png",
    }
    assert not [name for name in files if "/" in name]
    loaded = VQModelHF.from_pretrained("org/trained")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_model_is_pushed_while_it_trains(hub, tmp_path):
    run = Trainer(config(tmp_path, push_to_hub=True, hub_model_id="org/training"))
    finish = run.uploads.finish
    seen = []

    def wait_and_look():
        seen.extend(commit.title for commit in hub.commits("org/training") if commit.title)
        finish()

    run.uploads.finish = wait_and_look
    push = run.uploads.push

    def push_and_wait(model, step):
        push(model, step)
        run.uploads._running.result()
        loaded = VQModelHF.from_pretrained("org/training", force_download=True)
        weights = zip(loaded.parameters(), run._averaged_tokenizer().parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)

    run.uploads.push = push_and_wait
    run.train()
    assert [title for title in seen if title.startswith("Step")] == ["Step 2", "Step 4"]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_push_that_fails_does_not_stop_the_training(hub, tmp_path, monkeypatch, caplog):
    run = Trainer(config(tmp_path, push_to_hub=True, hub_model_id="org/unlucky"))
    monkeypatch.setattr("vistok.training.results.HfApi", lambda: HfApi(token="hf_wrong"))
    with pytest.raises(ValueError, match="could not upload to org/unlucky .*hf upload org/unlucky"):
        run.train()
    assert "Could not upload to org/unlucky" in caplog.text
    VQModelHF.from_pretrained(tmp_path)  # the finished model is there


def test_a_push_without_permission_is_refused_before_any_work(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("vistok.training.results.HfApi", lambda: HfApi(token="hf_wrong"))
    with pytest.raises(ValueError, match="push_to_hub: cannot make the repository"):
        Trainer(config(tmp_path / "run", push_to_hub=True, hub_model_id="org/refused"))
    assert not (tmp_path / "run").exists()


def test_training_learns(tmp_path):
    tokenizer = {**{k: TOKENIZER[k] for k in ("image_size", "network")}, "model_type": "vistok_fsq"}
    Trainer(
        config(tmp_path, tokenizer=tokenizer, max_train_steps=60, train_batch_size=8, learning_rate=3e-3)
    ).train()
    losses = [line["l2"] for line in log_of(tmp_path)[0]]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_accumulated_micro_batches_equal_one_batch(tmp_path):
    weights = []
    for name, accumulation in (("one", 1), ("four", 4)):
        folder = tmp_path / name
        run = config(
            folder,
            max_train_steps=2,
            train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            use_ema=False,
            random_flip=False,
        )
        weights.append(list(Trainer(run).train().parameters()))
    for a, b in zip(*weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_bf16_and_gradient_checkpointing_train(tmp_path):
    model = Trainer(config(tmp_path, mixed_precision="bf16", gradient_checkpointing=True)).train()
    assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in model.parameters())


def test_a_gradient_that_is_not_finite_is_skipped_and_ten_stop_the_run(tmp_path):
    trainer = Trainer(config(tmp_path))
    poison(trainer, lambda call: call == 1 or call > 2)
    before = [weight.clone() for weight in trainer.tokenizer.parameters()]
    batches = trainer.stream.batches()
    assert not trainer.training_step(batches).taken
    assert (trainer.step, trainer.skipped, trainer.skipped_in_a_row) == (0, 1, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.tokenizer.parameters(), strict=True))
    assert trainer.training_step(batches).taken
    assert (trainer.step, trainer.skipped, trainer.skipped_in_a_row) == (1, 1, 0)
    with pytest.raises(TrainingError, match="10 steps in a row"):
        for _ in range(10):
            trainer.training_step(batches)


def test_a_quantizer_and_a_network_of_another_package_train_from_a_recipe(tmp_path):
    (tmp_path / "their_package.py").write_text(THEIR_PACKAGE)
    (tmp_path / "recipe.yaml").write_text(
        "imports: [their_package]\n"
        "tokenizer:\n  model_type: their_sign\n  bits: 6\n  image_size: 32\n"
        "  network: {model_type: their_patches, patch: 4}\n"
        "max_train_steps: 2\ntrain_batch_size: 2\nmax_eval_samples: 2\nnum_validation_images: 1\n"
        "report_to: none\n"
    )
    command = [
        sys.executable,
        "-m",
        "vistok.cli",
        "train",
        "recipe.yaml",
        "--output_dir",
        "out",
        "--tokenizer.bits",
        "5",
    ]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=_environment(tmp_path), timeout=200
    )
    assert result.returncode == 0, result.stderr
    check = (
        "import their_package; from transformers import AutoModel; m = AutoModel.from_pretrained('out'); "
        "names = [type(part).__name__ for part in (m, m.quantizer, m.encoder)]; "
        "print(*names, m.codebook_size, m.token_shape)"
    )
    result = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=_environment(tmp_path),
    )
    assert result.stdout.split("\n")[0] == "VQModelHF Sign Patches 32 (8, 8)", result.stderr


def _environment(folder) -> dict[str, str]:
    import os
    from pathlib import Path

    root = Path(__file__).parents[2]
    return {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{root}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


THEIR_PACKAGE = """
import torch
from torch import nn
from vistok.configuration import NetworkConfig, VisualTokenizerConfig, number
from vistok.networks import Decoder, Encoder
from vistok.quantizers import Quantizer, QuantizerOutput, straight_through


class SignConfig(VisualTokenizerConfig):
    model_type = "their_sign"
    bits: int = number(4, at_least=1)


class Sign(Quantizer):
    config_class = SignConfig

    def __init__(self, bits=4):
        super().__init__()
        self.codebook_size = 2**bits
        self.codebook_dim = self.latent_dim = self.quantized_dim = bits

    def quantize(self, latents):
        signs = torch.where(latents > 0, 1.0, -1.0)
        losses = {"commitment": (latents - signs).square().mean()} if self.training else {}
        return QuantizerOutput(straight_through(latents, signs), self.assign(latents), losses)

    def assign(self, latents):
        places = 2 ** torch.arange(self.latent_dim, device=latents.device)
        return ((latents > 0).movedim(1, -1) * places).sum(-1)

    def entries(self, tokens):
        bits = tokens[..., None] >> torch.arange(self.latent_dim, device=tokens.device) & 1
        return (2.0 * bits - 1).movedim(-1, 1)


class PatchesConfig(NetworkConfig):
    model_type = "their_patches"
    patch: int = number(4, at_least=1)


class Patches(Encoder):
    config_class = PatchesConfig

    def __init__(self, patch=4):
        super().__init__()
        self.channels, self.downsample_factor = 16, patch
        self.conv = nn.Conv2d(3, 16, patch, patch)

    def forward(self, pixel_values):
        return self.conv(pixel_values)


class Unpatches(Decoder):
    config_class = PatchesConfig

    def __init__(self, patch=4):
        super().__init__()
        self.channels = 16
        self.conv = nn.ConvTranspose2d(16, 3, patch, patch)

    @property
    def last_layer(self):
        return self.conv.weight

    def forward(self, features):
        return self.conv(features)
"""


def test_the_quantizer_hears_every_step_and_every_skip(tmp_path):
    heard = []

    def listen(trainer):
        quantizer = trainer.tokenizer.quantizer
        quantizer.set_step = heard.append
        quantizer.discard_statistics = lambda: heard.append("discard")

    trainer = Trainer(config(tmp_path, max_train_steps=3))
    listen(trainer)
    poison(trainer, lambda call: call == 2)
    trainer.train()
    assert heard == [0, 1, "discard", 2, 3]
    heard.clear()
    resumed = Trainer(config(tmp_path, max_train_steps=3, resume_from_checkpoint="checkpoint-2"))
    listen(resumed)
    resumed.train()
    assert heard == [2, 3]


def test_an_empty_or_unreadable_validation_split_is_refused(tmp_path):
    photograph = Image.new("RGB", (40, 40), "teal")
    for split, readable in (("train", True), ("validation", False)):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for i in range(3):
            path = tmp_path / "pictures" / split / f"{i}.png"
            photograph.save(path) if readable else path.write_bytes(b"no picture")
    run = config(tmp_path / "run", dataset_name=str(tmp_path / "pictures"), on_unreadable="skip")
    with pytest.raises(ValueError, match="first 2 pictures of split 'validation' cannot be read"):
        Trainer(run).train()


def test_a_tokenizer_is_trained_on_with_parts_frozen(finished, tmp_path):
    folder, trained = finished
    run = Trainer(
        config(
            tmp_path,
            tokenizer=trained.config,
            init_from=str(folder),
            freeze_encoder=True,
            freeze_codebook=True,
            use_ema=False,
        )
    )
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in run.tokenizer.state_dict().items())
    after = run.train().state_dict()
    frozen = ("encoder.", "to_latents.", "quantizer.")
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_weight_decay_takes_kernels_alone(tmp_path):
    run = Trainer(config(tmp_path, adam_weight_decay=0.1))
    decayed, others = run.optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(weight.ndim > 1 for weight in decayed["params"])
    names = {weight: name for name, weight in run.tokenizer.named_parameters()}
    kept = [names[weight] for weight in others["params"]]
    assert "quantizer.codebook" in kept
    assert all(name.startswith("quantizer.") or name.endswith("bias") for name in kept)


def test_epochs_and_the_scaled_rate_count_the_pictures_of_a_step(tmp_path):
    changes = {"train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-4}
    run = Trainer(config(tmp_path, num_train_epochs=0.5, scale_lr=True, lr_scheduler="constant", **changes))
    assert run.max_train_steps == round(0.5 * run.training_data.num_rows / 8)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(8e-4)


def test_a_tracker_that_is_not_installed_is_refused_before_any_work(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    trackers = ("wandb", "trackio", "tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name in trackers else find(name))
    for tracker, package in (("wandb", "wandb"), ("trackio", "trackio"), ("tensorboard", "vistok")):
        with pytest.raises(ValueError, match=f"{tracker}, which is not installed: pip install .*{package}"):
            Trainer(config(tmp_path / "run", report_to=tracker))
    assert not (tmp_path / "run").exists()


def test_the_users_own_files_are_never_touched(tmp_path):
    (tmp_path / ".tmp-mine").mkdir()
    (tmp_path / ".tmp-mine" / "precious").write_text("x")
    Trainer(config(tmp_path, max_train_steps=1)).train()
    assert (tmp_path / ".tmp-mine" / "precious").read_text() == "x"
    for name in ("README.md", "config.json", "model.safetensors"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(ValueError, match=f"holds {name} and no checkpoint: the run would replace it"):
            Trainer(config(folder, resume_from_checkpoint="latest"))
        assert (folder / name).read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.jsonl").write_text('{"event": 1}\n')
    with pytest.raises(ValueError, match="log.jsonl is not the log of a run"):
        Trainer(config(tmp_path / "other")).train()
    with pytest.raises(ValueError, match="output_dir is empty"):
        config("")


def test_a_checkpoint_of_another_run_is_refused_where_one_is(finished, tmp_path):
    folder, _ = finished
    Trainer(config(tmp_path, max_train_steps=1)).train()
    with pytest.raises(ValueError, match="is of another run than those in"):
        Trainer(config(tmp_path, resume_from_checkpoint=str(folder / "checkpoint-2")))


def test_a_resume_may_skip_the_picture_that_stopped_the_run(tmp_path):
    changes = {"max_train_steps": 2, "checkpointing_steps": 1}
    Trainer(config(tmp_path, **changes)).train()
    Trainer(config(tmp_path, **changes, on_unreadable="skip", resume_from_checkpoint="latest")).train()
    with pytest.raises(ValueError, match="made with tokenizer.codebook_size 32, this run has 16"):
        Trainer(
            config(
                tmp_path,
                **changes,
                tokenizer={**TOKENIZER, "codebook_size": 16},
                resume_from_checkpoint="latest",
            )
        )


def test_a_setting_that_an_older_version_had_not_is_its_default(tmp_path):
    now = config(tmp_path)
    saved = now.to_dict()
    del saved["lecam_weight"]
    now.check_resumable(saved)
    with pytest.raises(ValueError, match=r"made with lecam_weight 0.0, this run has 0.1"):
        config(tmp_path, adversarial_weight=1.0, lecam_weight=0.1).check_resumable(
            saved | {"adversarial_weight": 1.0}
        )


def test_what_accelerate_is_told_elsewhere_does_not_change_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ValueError, match="accumulate 4 steps .* the run 1"):
        Trainer(config(tmp_path))
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="ACCELERATE_USE_DEEPSPEED is set"):
        Trainer(config(tmp_path))


def test_a_process_trains_twice_with_another_precision(tmp_path):
    Trainer(config(tmp_path / "first", max_train_steps=1)).train()
    run = Trainer(config(tmp_path / "second", max_train_steps=1, mixed_precision="bf16"))
    assert run.accelerator.mixed_precision == "bf16"
    run.train()


def test_images_per_second_count_the_time_of_their_steps_alone(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("vistok.training.stopwatch.time.perf_counter", lambda: float(next(clock)))
    run = Trainer(config(tmp_path, max_train_steps=6, logging_steps=3, checkpointing_steps=2))
    run._save_checkpoint = lambda: [next(clock) for _ in range(10_000)]
    run._validate = run._save_checkpoint
    run.train()
    steps, _ = log_of(tmp_path)
    assert [line["step"] for line in steps] == [3, 6]
    assert all(0 < line["performance/seconds_per_step"] < 10 for line in steps)
