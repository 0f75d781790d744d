"""From a recipe and command-line flags to a `TrainingConfig`."""

import argparse
import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, get_origin

import yaml
from transformers import CONFIG_MAPPING

from .coercion import coerce, field_types, takes_list
from .config import TrainingConfig

DEFAULT_RECIPE = "quickstart"


def recipe_names() -> list[str]:
    """The names of the recipes that come with vistok."""
    return sorted(
        f.name.removesuffix(".yaml")
        for f in resources.files("vistok.recipes").iterdir()
        if f.suffix == ".yaml"
    )


def load_recipe(recipe: str) -> dict[str, Any]:
    """Reads a recipe by its name or by the path of a YAML file.

    Raises:
        ValueError: There is no such recipe or file, or it is not a mapping of settings.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"There is no recipe file {recipe}")
    elif recipe in recipe_names():
        path = resources.files("vistok.recipes") / f"{recipe}.yaml"
    else:
        raise ValueError(
            f"There is no recipe {recipe!r}{_did_you_mean(recipe, recipe_names())}; or name a YAML file"
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{recipe} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{recipe} must map settings to values, got {type(settings).__name__}")
    return settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting; those of the tokenizer are dotted and read by `training_config`."""
    parser.add_argument(
        "recipe",
        nargs="?",
        default=DEFAULT_RECIPE,
        help=f"a recipe's name ({', '.join(recipe_names())}) or YAML file; default: {DEFAULT_RECIPE}",
    )
    descriptions = _descriptions()
    for field in dataclasses.fields(TrainingConfig):
        if field.name == "tokenizer":
            continue
        annotation = field_types(TrainingConfig)[field.name]
        options: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": descriptions[field.name].replace("%", "%%"),
        }
        if annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(annotation) is list:
            options["nargs"] = "+"
        parser.add_argument(f"--{field.name}", **options)
    parser.add_argument_group(
        "tokenizer",
        "--tokenizer.FIELD VALUE and --tokenizer.network.FIELD VALUE set any field of the tokenizer, "
        "for example --tokenizer.levels 8 5 5 5 or --tokenizer.network.hidden_channels 64.",
    )


def split_dotted(words: list[str]) -> tuple[list[str], list[str]]:
    """Takes the `--tokenizer.*` flags and their values out of a command line.

    argparse knows no flag for them and would read a value as the recipe.

    Returns:
        The other words, and the dotted flags with their values.
    """
    plain: list[str] = []
    dotted: list[str] = []
    target = plain
    for word in words:
        if word.startswith("--"):
            target = dotted if word.startswith("--tokenizer.") else plain
        target.append(word)
    return plain, dotted


def training_config(flags: dict[str, Any], dotted: list[str]) -> TrainingConfig:
    """The configuration of a recipe with flags on top.

    Args:
        flags: What `add_flags` parsed: the recipe and the settings given.
        dotted: `--tokenizer.*` flags and their values, of `split_dotted`.

    Raises:
        ValueError: A setting is unknown, has the wrong type or is out of range; the message names it.
    """
    flags = dict(flags)
    recipe = flags.pop("recipe", DEFAULT_RECIPE)
    settings = load_recipe(recipe)
    settings.setdefault("tokenizer", {})
    if not isinstance(settings["tokenizer"], dict):
        raise ValueError(f"tokenizer must map fields to values, got {settings['tokenizer']!r}")
    settings.update(flags)
    asked = _dotted_flags(dotted)
    for keys, values in asked:
        if keys[-1] == "model_type":  # the recipe's fields belong to its own method or network
            _keep_common_fields(settings, keys[:-1], values[0])
    for keys, values in asked:
        target = settings
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ValueError(f"{key} must map fields to values, got {target!r}")
        target[keys[-1]] = values
    for package in coerce(settings.get("imports", []), list[str], "imports"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"imports: cannot import {package!r}: {error}") from error
    known = field_types(TrainingConfig)
    for name in settings:
        if name not in known:
            raise ValueError(
                f"Unknown setting {name!r} (value {settings[name]!r}){_did_you_mean(name, known)}"
            )
    tokenizer = _coerce_config(settings.pop("tokenizer"), "tokenizer")
    values = {name: coerce(value, known[name], name) for name, value in settings.items()}
    values.setdefault("output_dir", f"outputs/{Path(recipe).stem}")
    return TrainingConfig(tokenizer=tokenizer, **values)


def _keep_common_fields(settings: dict[str, Any], keys: list[str], model_type: str) -> None:
    """Drops the fields of a recipe's configuration that another `model_type` does not have."""
    holder = settings
    for key in keys[:-1]:
        holder = holder.setdefault(key, {})
    fields = holder.setdefault(keys[-1], {})
    if model_type in CONFIG_MAPPING and fields.get("model_type") != model_type:
        known = field_types(CONFIG_MAPPING[model_type])
        holder[keys[-1]] = {key: value for key, value in fields.items() if key in known}


def _coerce_config(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a configuration, each of its type; the network's too."""
    model_type = values.get("model_type")
    if isinstance(model_type, list):  # a flag's values come as a list
        model_type = model_type[0]
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{name}.model_type must name a registered configuration, got {model_type!r}"
            f"{_did_you_mean(str(model_type), [t for t in CONFIG_MAPPING if t.startswith('vistok_')])}"
        )
    config_class = CONFIG_MAPPING[model_type]
    known = field_types(config_class)
    coerced: dict[str, Any] = {"model_type": model_type}
    for key, value in values.items():
        if key == "model_type":
            continue
        if key not in known:
            raise ValueError(f"Unknown setting {name}.{key} (value {value!r}){_did_you_mean(key, known)}")
        if isinstance(value, list) and len(value) == 1 and not takes_list(known[key]):
            value = value[0]
        if key == "network" and isinstance(value, dict):
            coerced[key] = _coerce_config({"model_type": "vistok_simple_cnn", **value}, f"{name}.network")
        else:
            coerced[key] = coerce(value, known[key], f"{name}.{key}")
    return coerced


def _dotted_flags(words: list[str]) -> list[tuple[list[str], list[str]]]:
    """`["--tokenizer.levels", "8", "5"]` -> `[(["tokenizer", "levels"], ["8", "5"])]`."""
    flags: list[tuple[list[str], list[str]]] = []
    for word in words:
        if word.startswith("--tokenizer."):
            key, _, value = word.removeprefix("--").partition("=")
            flags.append((key.split("."), [value] if value else []))
        else:
            flags[-1][1].append(word)
    for keys, values in flags:
        if not values:
            raise ValueError(f"--{'.'.join(keys)} needs a value")
    return flags


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _descriptions() -> dict[str, str]:
    """The description of each setting, from the docstring of `TrainingConfig`."""
    text = inspect.cleandoc(TrainingConfig.__doc__).split("Args:\n")[1].split("\nRaises:")[0]
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in entries}
