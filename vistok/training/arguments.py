"""From a recipe and command-line flags to a `TrainingConfig`.

YAML reads `5e-4` as a string and a flag is always one, so every value is brought to the type of its field
before the configuration checks it.
"""

import argparse
import dataclasses
import difflib
import importlib
import json
import types
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import CONFIG_MAPPING, PreTrainedConfig

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
        annotation = _annotations(TrainingConfig)[field.name]
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
    settings = load_recipe(flags.pop("recipe", DEFAULT_RECIPE))
    settings.setdefault("tokenizer", {})
    if not isinstance(settings["tokenizer"], dict):
        raise ValueError(f"tokenizer must map fields to values, got {settings['tokenizer']!r}")
    settings.update(flags)
    for keys, values in _dotted_flags(dotted):
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
    known = _annotations(TrainingConfig)
    for name in settings:
        if name not in known:
            raise ValueError(
                f"Unknown setting {name!r} (value {settings[name]!r}){_did_you_mean(name, known)}"
            )
    tokenizer = _coerce_config(settings.pop("tokenizer"), "tokenizer")
    values = {name: coerce(value, known[name], name) for name, value in settings.items()}
    values.setdefault("output_dir", "outputs/" + Path(str(flags.get("recipe", DEFAULT_RECIPE))).stem)
    return TrainingConfig(tokenizer=tokenizer, **values)


def coerce(value: Any, annotation: Any, name: str) -> Any:
    """Brings a value of a YAML file or a flag to the type of its field.

    Args:
        value: The value, often a string.
        annotation: The field's type.
        name: The field's name, for the error.

    Raises:
        ValueError: The value cannot be of that type.
    """
    for option in (
        get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    ):
        try:
            return _as(value, option)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"{name} must be {_readable(annotation)}, got {value!r}")


def _as(value: Any, annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if annotation in (None, type(None)):
        if value is None or value in ("none", "None", "null"):
            return None
        raise ValueError
    if origin is Literal:
        # A YAML `no` is False, but the name of a precision; a report to nobody may be written as nothing.
        value = {False: "no", None: "none"}.get(value, value) if not isinstance(value, str | list) else value
        if value in arguments:
            return value
        raise ValueError
    if origin in (list, tuple):
        items = (
            value
            if isinstance(value, list | tuple)
            else json.loads(value)
            if str(value)[:1] == "["
            else [value]
        )
        return [_as(item, arguments[0]) for item in items]
    if annotation is bool:
        if isinstance(value, bool):
            return value
        return (
            {"true": True, "false": False}[str(value).lower()]
            if str(value).lower() in ("true", "false")
            else int("x")
        )
    if annotation in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if annotation is int and not isinstance(value, int):
            if not number.is_integer():
                raise ValueError
            return int(value) if isinstance(value, str) and value.lstrip("+-").isdigit() else int(number)
        return value if isinstance(value, annotation) else annotation(number)
    if annotation is str:
        if isinstance(value, str):
            return value
        raise ValueError
    if isinstance(value, annotation):
        return value
    raise ValueError


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
    known = _annotations(config_class)
    coerced: dict[str, Any] = {"model_type": model_type}
    for key, value in values.items():
        if key == "model_type":
            continue
        if key not in known:
            raise ValueError(f"Unknown setting {name}.{key} (value {value!r}){_did_you_mean(key, known)}")
        if isinstance(value, list) and len(value) == 1 and not _takes_list(known[key]):
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


def _annotations(config_class: type) -> dict[str, Any]:
    """The types of a configuration's fields, without those that transformers adds to every one."""
    hints: dict[str, Any] = {}
    for base in reversed(config_class.__mro__):
        if not issubclass(PreTrainedConfig, base):
            hints |= _own_hints(base)
    return {name: hints[name] for name in config_class.__dataclass_fields__ if name in hints}


def _own_hints(base: type) -> dict[str, Any]:
    # get_type_hints of the class itself would evaluate the inherited annotations too, which transformers
    # writes as text.
    alone = type(
        base.__name__,
        (),
        {"__annotations__": base.__dict__.get("__annotations__", {}), "__module__": base.__module__},
    )
    return get_type_hints(alone)


def _takes_list(annotation: Any) -> bool:
    return any(get_origin(option) in (list, tuple) for option in (*get_args(annotation), annotation))


def _readable(annotation: Any) -> str:
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, options[0].__args__ if len(options) == 1 else options))
    return " or ".join(
        getattr(option, "__name__", str(option)) if get_origin(option) is None else str(option)
        for option in options
    )


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _descriptions() -> dict[str, str]:
    """The description of each setting, from the docstring of `TrainingConfig`."""
    text = TrainingConfig.__doc__.split("Args:")[1].split("Raises:")[0]
    lines = [line.strip() for line in text.strip().splitlines()]
    return dict(line.split(": ", 1) for line in lines)
