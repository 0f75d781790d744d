"""Every recipe: what its header promises parses and builds, and its settings train a step at reduced size."""

import argparse
import functools
import importlib.util
import re
import shlex
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.evaluation.random_trunks import trunk_file
from vistok import VQModelHF
from vistok.training import Trainer, TrainingConfig
from vistok.training.arguments import add_flags, recipe_names, split_dotted, training_config

NAMES = recipe_names()
BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"


@functools.cache
def header_of(name: str) -> str:
    """The comment that opens a recipe's file, without its signs."""
    text = (resources.files("vistok.recipes") / f"{name}.yaml").read_text()
    return "\n".join(re.findall(r"^# ?(.*)", text.split("\ntokenizer:")[0].split("\nbase:")[0], re.MULTILINE))


def commands_of(name: str) -> list[str]:
    """The command lines of a header, without the figures beside them."""
    return re.findall(r"^  ((?:vistok|accelerate) [^|]*?) *(?:\||$)", header_of(name), re.MULTILINE)


def parse(*words: str) -> TrainingConfig:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    plain, dotted = split_dotted(list(words))
    return training_config(vars(parser.parse_args(plain)), dotted)


def parse_command(command: str) -> TrainingConfig:
    words = shlex.split(command)
    start = 2 if words[:2] == ["vistok", "train"] else words.index("scripts/train.py") + 1
    return parse(*words[start:])


@pytest.mark.parametrize("name", NAMES)
def test_a_header_has_its_parts(name):
    header = header_of(name)
    assert re.search(rf"^  vistok train {name}\b", header, re.MULTILINE)
    for part in ("Cost", "Score"):
        assert re.search(rf"^{part}: \S", header, re.MULTILINE), part
    if "tiny_imagenet" not in name and name != "quickstart":
        assert "Reproduces: " in header
        assert re.search(r"^Seed.*: \S|\| +rFID$", header, re.MULTILINE)  # its scores, or a table of them


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_a_header_parses_and_builds(name):
    commands = commands_of(name)
    assert commands
    for command in commands:
        config = parse_command(command)
        with torch.device("meta"):
            model = VQModelHF(config.tokenizer)
        assert all(parameter.is_meta for parameter in model.parameters())
        assert 2e5 < sum(parameter.numel() for parameter in model.parameters()) < 1.1e8


def test_the_first_of_many_commands_is_the_recipe_as_it_is():
    own = parse("vq_celeba64").to_dict()
    rows = [parse_command(command).to_dict() for command in commands_of("vq_celeba64")]
    assert rows[0] == own
    tokenizers = [repr(row["tokenizer"]) for row in rows]
    assert len(set(tokenizers)) == len(rows) == 10  # the rows of the table that are of VQ


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [  # as counted in the projects themselves, in millions
        ("fsq_imagenet128_888555", 8.42, 8.45),
        ("vq_celeba64", 2.43, 2.43),
        ("vqgan_llamagen_imagenet256", 29.30, 42.45),
        ("optvq_imagenet256_16x16x4", 29.30, 42.45),
        ("optvq_imagenet256_f32", 41.1, 59.0),
    ],
)
def test_networks_are_as_large_as_the_seeds(name, encoder, decoder):
    with torch.device("meta"):
        model = VQModelHF(parse(name).tokenizer)
    for part, millions in ((model.encoder, encoder), (model.decoder, decoder)):
        assert sum(parameter.numel() for parameter in part.parameters()) / 1e6 == pytest.approx(
            millions, rel=5e-3
        )


def test_the_recipes_for_two_cores_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("methods", BENCHMARKS / "methods.py")
    methods = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(methods)
    flags = ["--dataset_name", "PATH", "--hidden_channels", "32", "--max_train_steps", "700"]
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["methods.py", *flags, "--output_dir", "/tmp"])
    arguments = methods.parse("", "", 700, list(methods.METHODS))
    torch.set_num_threads(threads)
    network = {"model_type": "vistok_simple_cnn", "hidden_channels": 32}
    apart = ("output_dir", "dataset_name", "report_to", "checkpoints_total_limit")

    def comparable(config: TrainingConfig) -> dict:
        return {name: value for name, value in config.to_dict().items() if name not in apart}

    measured = []
    for tokenizer in (tokenizer for sizes in methods.METHODS.values() for tokenizer in sizes.values()):
        if tokenizer["model_type"] in methods.ANNEALED:
            tokenizer = {**tokenizer, methods.ANNEALED[tokenizer["model_type"]]: 700}
        settings = methods.settings(tokenizer, network, arguments)
        measured.append(comparable(TrainingConfig(output_dir="x", **settings)))
    unmeasured = {"fsq_tiny_imagenet", "multi_scale_vq_tiny_imagenet"}
    for name in (name for name in NAMES if name.endswith("_tiny_imagenet") and name not in unmeasured):
        for command in commands_of(name):
            assert comparable(parse_command(command)) in measured, command


SMALL = {
    "vistok_simple_cnn": {"hidden_channels": 8, "num_res_blocks": 1},
    "vistok_strided_cnn": {"hidden_channels": 8},
    "vistok_vqgan": {"hidden_channels": 32, "num_res_blocks": 1, "z_channels": 32},
}
REDUCED = {
    "dataset_name": "samples",
    "train_split": "train",
    "validation_split": "validation",
    "dataloader_num_workers": 0,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "lr_warmup_steps": 0,  # the first step of a warm-up has a rate of 0
    "adversarial_start_step": 0,
    "discriminator_channels": 8,
    "report_to": "none",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_on_two_pictures(name, tmp_path, tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)  # it allows one precision in a process
    recipe = parse(name)
    fields = dict(SMALL[recipe.tokenizer.network.model_type])
    settings = {**REDUCED, "output_dir": str(tmp_path)}
    if recipe.perceptual_weight:
        settings["perceptual_trunk_weights"] = trunk_file("vgg", tmp_path_factory.getbasetemp())
    if recipe.crop == "celeba_crop":
        settings["crop"] = "random_crop"  # the samples are no faces
    tokenizer = {f"network.{key}": value for key, value in fields.items()}
    tokenizer["image_size"] = min(64, recipe.tokenizer.image_size)
    if "codebook_size" in recipe.tokenizer.public_fields():
        tokenizer["codebook_size"] = 64
    words = [f"--{key}={value}" for key, value in settings.items()]
    config = parse(name, *words, *(f"--tokenizer.{key}={value}" for key, value in tokenizer.items()))
    trainer = Trainer(config)
    before = [parameter.detach().clone() for parameter in trainer.tokenizer.parameters()]
    step = trainer.training_step(trainer.stream.batches())
    assert step.taken
    assert all(term.isfinite() for term in step.terms.values())
    assert bool(step.discriminator_terms) == bool(recipe.adversarial_weight)
    after = list(trainer.tokenizer.parameters())
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert sum(moved) > 0.8 * len(moved)
