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

from ..configuration import VisualTokenizerConfig
from ..messages import one_line
from .coercion import coerce, field_types, takes_list
from .config import TrainingConfig

DEFAULT_RECIPE = "quickstart"
_SUFFIXES = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """The names of the recipes that come with vistok."""
    return sorted(
        f.name.removesuffix(".yaml")
        for f in resources.files("vistok.recipes").iterdir()
        if f.suffix == ".yaml"
    )


def load_recipe(recipe: str) -> dict[str, Any]:
    """Reads a recipe by its name or by the path of a YAML file.

    A recipe may name another as its `base`, by name or by a path seen from its own folder, and holds what it
    changes: fields of the tokenizer and of its network one by one. Fields that another `model_type` does not
    have fall away.

    Raises:
        ValueError: There is no such recipe or file, it is not a mapping of settings, or it is its own base.
    """
    return _load(recipe, builders=())


def _load(recipe: str, builders: tuple[str, ...]) -> dict[str, Any]:
    """A recipe on its base; `builders` are those that build on it."""
    if recipe in builders:
        raise ValueError(f"the base of {builders[-1]} is {recipe}, which builds on it")
    changes = _read(recipe)
    base = changes.pop("base", None)
    if base is None:
        return changes
    if not isinstance(base, str):
        raise ValueError(f"base of {recipe} must name a recipe or a YAML file, got {base!r}")
    if Path(base).suffix in _SUFFIXES:
        base = str((Path(recipe).parent / base).resolve())
    try:
        settings = _load(base, (*builders, recipe))
    except ValueError as error:
        raise ValueError(f"{recipe}: {error}") from error
    _import_packages({**settings, **changes})
    return _changed(settings, changes)


def _read(recipe: str) -> dict[str, Any]:
    """What the file of a recipe says."""
    path = Path(recipe)
    if path.suffix in _SUFFIXES:
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
    _check_names(settings, recipe)
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
    settings = {**load_recipe(recipe), **flags}
    _import_packages(settings)
    init_from = coerce(settings.get("init_from"), str | None, "init_from")
    if init_from is not None:
        settings["tokenizer"] = _tokenizer_of(init_from)
    settings = _changed(settings, {"tokenizer": _dotted_flags(dotted)})
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


def _check_names(settings: dict, recipe: str) -> None:
    """Raises where a setting's name is no text: YAML reads `on` and `1` as something else."""
    for name, value in settings.items():
        if not isinstance(name, str):
            raise ValueError(f"{recipe}: the name of a setting must be text, got {name!r} (value {value!r})")
        if isinstance(value, dict):
            _check_names(value, recipe)


def _import_packages(settings: dict[str, Any]) -> None:
    """Imports what a recipe asks for, so that its methods are known."""
    for package in coerce(settings.get("imports", []), list[str], "imports"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"imports: cannot import {package!r}: {error}") from error


def _tokenizer_of(model: str) -> dict[str, Any]:
    """The fields of a saved tokenizer's configuration, as a recipe would hold them."""
    try:
        config = VisualTokenizerConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"init_from {model!r} cannot be read: {one_line(error)}; a tokenizer of another project needs "
            "VQModelHF.from_pretrained(...).save_pretrained(folder), or vistok convert, first"
        ) from error
    fields = {name: getattr(config, name) for name in config.public_fields()}
    network = {"model_type": config.network.model_type, **config.network.own_values()}
    return {**fields, "model_type": config.model_type, "network": network}


def _changed(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with others on top; the tokenizer's and its network's are changed field by field."""
    changed = {**settings, **changes}
    for name in ("tokenizer", "network"):
        before, after = settings.get(name, {}), changes.get(name, {})
        for value in (before, after):
            if not isinstance(value, dict):
                raise ValueError(f"{name} must map fields to values, got {value!r}")
        if name in changed:
            changed[name] = _changed(_common_fields(before, after.get("model_type")), after)
    return changed


def _common_fields(fields: dict[str, Any], model_type: Any) -> dict[str, Any]:
    """The fields of a configuration that one of another `model_type` has too."""
    model_type = model_type[0] if isinstance(model_type, list) else model_type  # a flag's values are a list
    if (
        not isinstance(model_type, str)
        or model_type not in CONFIG_MAPPING
        or fields.get("model_type") == model_type
    ):
        return fields
    known = field_types(CONFIG_MAPPING[model_type])
    return {key: value for key, value in fields.items() if key in known}


def _coerce_config(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a configuration, each of its type; the network's too."""
    model_type = values.get("model_type")
    if isinstance(model_type, list):  # a flag's values come as a list
        model_type = model_type[0]
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
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


def _dotted_flags(words: list[str]) -> dict[str, Any]:
    """The fields that flags set: `["--tokenizer.levels", "8", "5"]` -> `{"levels": ["8", "5"]}`."""
    flags: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--tokenizer."):
            key, _, value = word.removeprefix("--tokenizer.").partition("=")
            flags.append((key, [value] if value else []))
        else:
            flags[-1][1].append(word)
    fields: dict[str, Any] = {}
    for key, values in flags:
        if not values:
            raise ValueError(f"--tokenizer.{key} needs a value")
        *above, last = key.split(".")
        target = fields
        for name in above:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ValueError(f"{name} must map fields to values, got {target!r}")
        target[last] = values
    return fields


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _descriptions() -> dict[str, str]:
    """The description of each setting, from the docstring of `TrainingConfig`."""
    text = inspect.cleandoc(TrainingConfig.__doc__).split("Args:\n")[1].split("\nRaises:")[0]
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in entries}
