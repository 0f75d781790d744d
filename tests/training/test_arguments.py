"""Recipes and flags: every value has the type of its field, and what is wrong is named before any work."""

import argparse

import pytest

from vistok.training.arguments import add_flags, load_recipe, recipe_names, split_dotted, training_config

RECIPE = """
tokenizer:
  model_type: vistok_fsq
  levels: [8, 5, 5, 5]
  image_size: 32
  network: {model_type: vistok_simple_cnn, hidden_channels: 8}
learning_rate: 5e-4
max_train_steps: 10
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def parse(*words: str):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    plain, dotted = split_dotted(list(words))
    return training_config(vars(parser.parse_args(plain)), dotted)


def test_yaml_numbers_without_a_dot_are_numbers(recipe):
    assert parse(recipe).learning_rate == 5e-4  # YAML reads 5e-4 as a string


def test_flags_override_the_recipe(recipe):
    config = parse(
        recipe,
        "--max_train_steps", "1e3",
        "--no-random_flip",
        "--mixed_precision", "bf16",
        "--tokenizer.levels", "8", "8", "8",
        "--tokenizer.network.hidden_channels", "16",
        "--tokenizer.bound=tan",
    )  # fmt: skip
    assert config.max_train_steps == 1000
    assert config.random_flip is False
    assert config.mixed_precision == "bf16"
    assert config.tokenizer.levels == [8, 8, 8]
    assert config.tokenizer.network.hidden_channels == 16
    assert config.tokenizer.bound == "tan"


def test_the_values_of_a_dotted_flag_are_not_the_recipe():
    assert parse("--tokenizer.levels", "8", "8", "--max_train_steps", "3").tokenizer.levels == [8, 8]


def test_resolution_defaults_to_image_size(recipe):
    assert parse(recipe).resolution == 32
    assert parse(recipe, "--resolution", "64", "--tokenizer.image_size", "64").resolution == 64
    with pytest.raises(ValueError, match="resolution is 64 but the tokenizer's image_size is 32"):
        parse(recipe, "--resolution", "64")


def test_the_output_goes_to_a_folder_named_after_the_recipe(recipe):
    assert parse(recipe).output_dir == "outputs/recipe"
    assert parse("fsq_tiny_imagenet").output_dir == "outputs/fsq_tiny_imagenet"


def test_a_yaml_no_is_a_precision(recipe, tmp_path):
    path = tmp_path / "no.yaml"
    path.write_text(RECIPE + "mixed_precision: no\nreport_to: none\n")
    config = parse(str(path))
    assert (config.mixed_precision, config.report_to) == ("no", "none")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--max_train_steps", "many"], "max_train_steps"),
        (["--max_train_steps", "1.5"], "max_train_steps"),
        (["--max_train_steps", "0"], "max_train_steps"),
        (["--learning_rate", "-1"], "learning_rate"),
        (["--learning_rate", "nan"], "learning_rate"),
        (["--mixed_precision", "fp8"], "mixed_precision"),
        (["--lr_scheduler", "cosin"], "lr_scheduler"),
        (["--train_batch_size", "0"], "train_batch_size"),
        (["--adam_beta2", "1"], "adam_beta2"),
        (["--max_eval_samples", "0"], "max_eval_samples"),
        (["--tokenizer.levels", "8", "1"], "levels"),
        (["--tokenizer.levels", "8.5"], "tokenizer.levels"),
        (["--tokenizer.level", "8"], "levels"),
        (["--tokenizer.dtype", "bfloat16"], "tokenizer.dtype"),
        (["--tokenizer.network.hidden_channels", "0"], "hidden_channels"),
        (["--tokenizer.network.width", "3"], "tokenizer.network.width"),
        (["--tokenizer.model_type", "vistok_fsk"], "vistok_fsq"),
        (["--tokenizer.image_size"], "tokenizer.image_size"),
        (["--imports", "no_such_package"], "no_such_package"),
    ],
)
def test_a_bad_flag_is_named(recipe, words, named):
    with pytest.raises(ValueError, match=named) as error:
        parse(recipe, *words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_train_stepz: 3", "max_train_steps"),
        ("tokenizer: fsq", "tokenizer"),
        ("tokenizer: {levels: [8]}", "model_type"),
        ("- 3", "map settings"),
        ("a: [", "not a YAML file"),
        ("", "map settings"),
        ("tokenizer: {model_type: bert}", "tokenizer"),
        ("center_crop: maybe", "center_crop"),
        ("imports: 3", "imports"),
        ("seed: -1", "seed"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, named):
    path = tmp_path / "bad.yaml"
    path.write_text(text if "tokenizer" in text or not text or text[0] in "-a" else RECIPE + text)
    with pytest.raises(ValueError, match=named) as error:
        parse(str(path))
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_suggests_one():
    with pytest.raises(ValueError, match="did you mean 'quickstart'"):
        parse("quickstar")
    with pytest.raises(ValueError, match="no recipe file"):
        parse("nowhere.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses_and_says_what_it_costs_and_scores(name):
    parse(name)
    assert load_recipe(name)
    from importlib import resources

    header = (resources.files("vistok.recipes") / f"{name}.yaml").read_text().split("tokenizer:")[0]
    assert f"vistok train {name}" in header
    for word in ("Cost", "Score"):
        assert f"# {word}" in header


def test_another_method_by_flag_leaves_the_fields_of_the_recipes_own(recipe):
    words = ["--tokenizer.model_type", "vistok_vq", "--tokenizer.codebook_size", "64"]
    tokenizer = parse(recipe, *words, "--tokenizer.network.model_type", "vistok_strided_cnn").tokenizer
    assert (tokenizer.model_type, tokenizer.codebook_size, tokenizer.image_size) == ("vistok_vq", 64, 32)
    assert (tokenizer.network.model_type, tokenizer.network.hidden_channels) == ("vistok_strided_cnn", 8)
