"""Recipes and flags: every value has the type of its field, and what is wrong is named before any work."""

import argparse

import pytest

from vistok import VQModelHF
from vistok.training.arguments import add_flags, load_recipe, split_dotted, training_config

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


def test_none_clears_what_a_recipe_says(tmp_path):
    path = tmp_path / "column.yaml"
    path.write_text(RECIPE + "image_column: photo\nmax_eval_samples: 3\n")
    config = parse(str(path), "--image_column", "none", "--max_eval_samples", "none")
    assert (config.image_column, config.max_eval_samples) == (None, None)


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
        ("on: true", "must be text, got True"),
        ("tokenizer: {1: 2}", "must be text, got 1"),
        ("tokenizer: {model_type: {a: 1}}", "model_type"),
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


def test_another_method_by_flag_leaves_the_fields_of_the_recipes_own(recipe):
    words = ["--tokenizer.model_type", "vistok_vq", "--tokenizer.codebook_size", "64"]
    tokenizer = parse(recipe, *words, "--tokenizer.network.model_type", "vistok_strided_cnn").tokenizer
    assert (tokenizer.model_type, tokenizer.codebook_size, tokenizer.image_size) == ("vistok_vq", 64, 32)
    assert (tokenizer.network.model_type, tokenizer.network.hidden_channels) == ("vistok_strided_cnn", 8)


def test_a_recipe_builds_on_another(recipe, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "middle.yaml").write_text("base: ../recipe.yaml\nlearning_rate: 1e-3\nseed: 3\n")
    above = tmp_path / "deep" / "above.yml"
    above.write_text(
        "base: middle.yaml\nseed: 4\ntokenizer: {levels: [8, 8, 8], network: {num_res_blocks: 1}}\n"
    )
    config = parse(str(above), "--tokenizer.network.hidden_channels", "16")
    assert (config.max_train_steps, config.learning_rate, config.seed) == (10, 1e-3, 4)
    assert (config.tokenizer.levels, config.tokenizer.image_size) == ([8, 8, 8], 32)
    assert (config.tokenizer.network.hidden_channels, config.tokenizer.network.num_res_blocks) == (16, 1)
    assert config.output_dir == "outputs/above"
    assert load_recipe(recipe)["learning_rate"] == "5e-4"  # the base itself is as it was


def test_a_recipe_of_another_method_keeps_what_both_have(recipe, tmp_path):
    above = tmp_path / "above.yaml"
    above.write_text(
        "base: recipe.yaml\ntokenizer:\n  model_type: vistok_lfq\n  num_bits: 3\n"
        "  network: {model_type: vistok_strided_cnn, num_downsamples: 2}\n"
    )
    tokenizer = parse(str(above)).tokenizer
    assert (tokenizer.model_type, tokenizer.num_bits, tokenizer.image_size) == ("vistok_lfq", 3, 32)
    assert tokenizer.network.model_type == "vistok_strided_cnn"
    assert (tokenizer.network.hidden_channels, tokenizer.network.num_downsamples) == (8, 2)


def test_a_recipe_builds_on_one_of_vistok(tmp_path):
    above = tmp_path / "above.yaml"
    above.write_text("base: quickstart\nmax_train_steps: 7\n")
    config, base = parse(str(above)), parse("quickstart")
    assert config.max_train_steps == 7
    assert config.tokenizer == base.tokenizer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: quickstar", r"above\.yaml: There is no recipe 'quickstar'; did you mean 'quickstart'"),
        ("base: nowhere.yaml", r"above\.yaml: There is no recipe file .*nowhere\.yaml"),
        ("base: above.yaml", r"above\.yaml: the base of .*above\.yaml is .*above\.yaml, which builds on it"),
        ("base: circle.yaml", r"circle\.yaml: .* is .*above\.yaml, which builds on it"),
        ("base: [quickstart]", "base of .*above.yaml must name a recipe or a YAML file, got .'quickstart'."),
        ("base: quickstart\ntokenizer: fsq", "tokenizer must map fields to values, got 'fsq'"),
        ("base: quickstart\ntokenizer: {network: 3}", "network must map fields to values, got 3"),
        ("base: quickstart\nimports: no_such_package", "imports: cannot import 'no_such_package'"),
        ("base: quickstart\nmax_train_stepz: 3", "Unknown setting 'max_train_stepz'"),
    ],
)
def test_a_bad_base_is_named(tmp_path, text, message):
    (tmp_path / "circle.yaml").write_text("base: above.yaml\n")
    above = tmp_path / "above.yaml"
    above.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        parse(str(above))
    assert "\n" not in str(error.value)


@pytest.fixture
def saved(recipe, tmp_path):
    VQModelHF(
        parse(recipe, "--tokenizer.levels", "4", "4", "--tokenizer.image_size", "48").tokenizer
    ).save_pretrained(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_init_from_brings_its_own_tokenizer(recipe, saved):
    config = parse(recipe, "--init_from", saved)
    assert config.init_from == saved
    assert (config.tokenizer.levels, config.tokenizer.image_size, config.resolution) == ([4, 4], 48, 48)
    assert config.tokenizer.network.hidden_channels == 8
    assert config.max_train_steps == 10  # all else is the recipe's
    larger = parse(recipe, "--init_from", saved, "--tokenizer.image_size", "64").tokenizer
    assert (larger.levels, larger.image_size) == ([4, 4], 64)


def test_init_from_may_stand_in_a_recipe(recipe, saved, tmp_path):
    above = tmp_path / "above.yaml"
    above.write_text(f"base: recipe.yaml\ninit_from: {saved}\n")
    assert parse(str(above)).tokenizer.levels == [4, 4]
    top = tmp_path / "top.yaml"
    top.write_text("base: above.yaml\ninit_from: null\n")
    assert parse(str(top)).tokenizer.levels == [8, 5, 5, 5]


def test_init_from_what_is_no_tokenizer(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(ValueError, match=f"init_from '{model}' cannot be read: ") as error:
            parse(recipe, "--init_from", str(model))
        assert "\n" not in str(error.value)


def test_init_from_a_repository_that_is_not_there(recipe, hub):
    with pytest.raises(ValueError, match="init_from 'org/nowhere' cannot be read: ") as error:
        parse(recipe, "--init_from", "org/nowhere")
    assert "\n" not in str(error.value)
    assert parse(recipe, "--init_from", "org/fsq-64k").tokenizer.levels == [8, 8, 8, 5, 5, 5]
