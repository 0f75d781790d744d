"""Training against a discriminator, with the perceptual loss: real runs on photographs."""

import json
import math

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.evaluation.random_trunks import trunk_file
from vistok.training import Trainer, TrainingConfig, loop

SETTINGS = {
    "tokenizer": {
        "model_type": "vistok_fsq",
        "levels": [8, 5, 5, 5],
        "image_size": 32,
        "network": {"model_type": "vistok_simple_cnn", "hidden_channels": 8},
    },
    "train_batch_size": 4,
    "learning_rate": 1e-3,
    "adversarial_weight": 0.5,
    "discriminator_channels": 16,
    "discriminator_layers": 2,
    "validation_steps": 1000,
    "num_validation_images": 1,
    "max_eval_samples": 2,
    "logging_steps": 1,
    "report_to": "none",
}


@pytest.fixture(autouse=True)
def new_process_state():
    AcceleratorState._reset_state(reset_partial_state=True)


def trainer(folder, **changes) -> Trainer:
    return Trainer(TrainingConfig(**{**SETTINGS, "output_dir": str(folder), **changes}))


def log_of(folder) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def test_both_players_learn_with_the_perceptual_loss(tmp_path):
    run = trainer(
        tmp_path / "run",
        max_train_steps=60,
        l1_weight=1.0,
        perceptual_weight=1.0,
        perceptual_network="alex",
        perceptual_trunk_weights=str(trunk_file("alex", tmp_path)),
        discriminator_start_step=5,
        adversarial_start_step=20,
        r1_weight=0.01,
        lecam_weight=0.01,
    )
    run.train()
    lines = log_of(tmp_path / "run")
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert [("discriminator/adversarial" in line, "adversarial" in line) for line in lines] == [
        (number >= 5, number >= 20) for number in range(60)
    ]
    terms = ("l1", "l2", "perceptual", "adversarial")
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line.get(name, 0) for name in terms))
    judged = [line["discriminator/adversarial"] for line in lines[5:]]
    assert judged[0] == pytest.approx(1, abs=0.2)  # of a discriminator that knows nothing, by the hinge loss
    assert sum(judged[10:15]) / 5 < 0.9 < judged[0]  # it learns while the generator pays it no heed
    assert sum(line["l1"] for line in lines[-10:]) < 0.8 * sum(line["l1"] for line in lines[:10])
    assert all(0 <= line["adaptive_weight"] <= 1e4 for line in lines[20:])


def test_each_player_gets_the_gradients_of_its_own_loss(tmp_path, monkeypatch):
    run = trainer(tmp_path, max_train_steps=2)
    judge, seen = run.adversary.discriminator, {}

    def keep(accelerator, optimizers, loss, max_grad_norm):
        seen["judge"] = [p.grad.clone() for p in judge.parameters()]
        seen["tokenizer"] = [p.grad.clone() for p in run.tokenizer.parameters()]
        return None

    monkeypatch.setattr(loop, "take_step", keep)
    terms_of, term_of = run.adversary.discriminator_terms, run.adversary.generator_term

    def kept_judged(pixel_values, reconstruction):
        terms = terms_of(pixel_values, reconstruction)
        seen["judge alone"] = torch.autograd.grad(
            sum(terms.values()), list(judge.parameters()), retain_graph=True
        )
        assert not torch.autograd.grad(
            sum(terms.values()), list(run.tokenizer.parameters()), retain_graph=True, allow_unused=True
        )[0]
        return terms

    def kept_term(reconstruction, distance, last_layer):
        term = term_of(reconstruction, distance, last_layer)
        seen["tokenizer alone"] = torch.autograd.grad(
            distance + term, list(run.tokenizer.parameters()), retain_graph=True
        )
        return term

    run.adversary.discriminator_terms, run.adversary.generator_term = kept_judged, kept_term
    run.training_step(run.stream.batches())
    for who in ("judge", "tokenizer"):
        for own, found in zip(seen[f"{who} alone"], seen[who], strict=True):
            torch.testing.assert_close(found, own)


def test_the_discriminator_and_lecam_resume(tmp_path):
    changes = {"lecam_weight": 0.1, "max_train_steps": 6, "checkpointing_steps": 3}
    trainer(tmp_path / "whole", **changes).train()
    first = trainer(tmp_path / "cut", **changes)
    first.max_train_steps = 3
    first.train()
    AcceleratorState._reset_state(reset_partial_state=True)
    resumed = trainer(tmp_path / "cut", **changes, resume_from_checkpoint="latest")
    assert resumed.adversary.lecam.real_mean != 0
    resumed.train()
    whole, cut = (
        [
            {k: v for k, v in line.items() if not k.startswith("performance/")}
            for line in log_of(tmp_path / name)
        ]
        for name in ("whole", "cut")
    )
    assert cut == whole


def scaled_trainer(folder, scale: float, **changes) -> Trainer:
    """A trainer with fp16's gradient scaler, whose tensors are float32: a CPU has no fp16 training."""
    run = trainer(folder, max_train_steps=20, **changes)
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    run.tokenizer.quantizer.set_step(0)
    return run


EMA = {
    **SETTINGS["tokenizer"],
    "model_type": "vistok_ema_vq",
    "codebook_size": 16,
    "codebook_dim": 4,
}
EMA.pop("levels")


def test_the_scale_of_fp16_changes_no_gradient_of_either_player(tmp_path):
    weights = []
    for name, scale in (("unscaled", None), ("scaled", 2.0**12)):
        AcceleratorState._reset_state(reset_partial_state=True)
        run = scaled_trainer(tmp_path / name, scale or 1.0, tokenizer=EMA)
        if scale is None:
            run.accelerator.scaler = None
        batches = run.stream.batches()
        for _ in range(3):
            assert run.training_step(batches).taken
        weights.append([*run.tokenizer.state_dict().values(), *run.adversary.discriminator.parameters()])
    for unscaled, scaled in zip(*weights, strict=True):
        torch.testing.assert_close(scaled, unscaled, rtol=1e-4, atol=1e-6)


def test_a_step_that_overflows_leaves_all_as_it_was_and_lowers_the_scale(tmp_path):
    run = scaled_trainer(tmp_path, 2.0**127, tokenizer=EMA, lecam_weight=0.1)
    batches = run.stream.batches()
    before = [run.tokenizer.state_dict(), run.adversary.discriminator.state_dict(), run.adversary.state()]
    before = json.dumps(before, default=lambda tensor: tensor.tolist())
    assert not run.training_step(batches).taken
    after = [run.tokenizer.state_dict(), run.adversary.discriminator.state_dict(), run.adversary.state()]
    assert json.dumps(after, default=lambda tensor: tensor.tolist()) == before
    assert run.accelerator.scaler.get_scale() == 2.0**126
    assert run.skipped == 1
    run.accelerator.scaler.update(2.0**10)
    assert run.training_step(batches).taken
    after = [run.tokenizer.state_dict(), run.adversary.discriminator.state_dict(), run.adversary.state()]
    assert json.dumps(after, default=lambda tensor: tensor.tolist()) != before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"discriminator_layers": 4}, "--discriminator_layers"),
        ({"adversarial_weight": 0.0, "r1_weight": 1.0}, "r1_weight and lecam_weight need a discriminator"),
        ({"discriminator_start_step": 5}, "discriminator_start_step is 5"),
        ({"l2_weight": 0.0}, "nothing to train for"),
        ({"perceptual_weight": 1.0, "perceptual_trunk_weights": "/no/such.safetensors"}, "such.safetensors"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(tmp_path, changes, named):
    with pytest.raises(ValueError, match=named) as error:
        trainer(tmp_path / "run", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
