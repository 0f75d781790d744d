"""Values of YAML files and flags, brought to the types of the fields they set.

YAML reads `5e-4` as a string and `no` as false, and a flag is always a string.
"""

import inspect
import json
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from transformers import PreTrainedConfig


def coerce(value: Any, annotation: Any, name: str) -> Any:
    """Brings a value to the type of its field.

    Args:
        value: The value, often a string.
        annotation: The field's type.
        name: The field's name, for the error.

    Raises:
        ValueError: The value cannot be of that type.
    """
    for option in sorted(_options(annotation), key=lambda option: option is not type(None)):
        try:  # none first: as a text it would be "none"
            return _as(value, option)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"{name} must be {_readable(annotation)}, got {value!r}")


def field_types(config_class: type) -> dict[str, Any]:
    """The types of a configuration's fields, without those that transformers adds to every one."""
    hints: dict[str, Any] = {}
    for base in reversed(config_class.__mro__):
        if not issubclass(PreTrainedConfig, base):
            # Each class by itself: transformers writes its own annotations as text that only it can evaluate.
            own = {"__annotations__": inspect.get_annotations(base), "__module__": base.__module__}
            hints |= get_type_hints(type(base.__name__, (), own))
    theirs = PreTrainedConfig.__dataclass_fields__
    return {name: hints[name] for name in config_class.__dataclass_fields__ if name not in theirs}


def takes_list(annotation: Any) -> bool:
    """Whether a field of this type may hold several values."""
    return any(get_origin(option) in (list, tuple) for option in _options(annotation))


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _as(value: Any, annotation: Any) -> Any:
    if annotation is type(None):
        return _as_none(value)
    if get_origin(annotation) is Literal:
        return _as_literal(value, get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        return [_as(item, get_args(annotation)[0]) for item in _as_items(value)]
    if annotation is bool:
        return _as_bool(value)
    if annotation in (int, float):
        return _as_number(value, annotation)
    if not isinstance(value, annotation):
        raise ValueError
    return value


def _as_none(value: Any) -> None:
    if value not in (None, "none", "None", "null"):
        raise ValueError


def _as_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    if value is False or value is None:  # YAML's reading of `no` and of `none` left empty
        value = "no" if value is False else "none"
    if value not in choices:
        raise ValueError
    return value


def _as_items(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else [value]


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise ValueError
    return str(value).lower() == "true"


def _as_number(value: Any, kind: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    if kind is float:
        return float(value)
    try:
        return int(value) if not isinstance(value, float) else _whole(value)
    except ValueError:
        return _whole(float(value))  # 1e6 is a whole number too


def _whole(value: float) -> int:
    if not value.is_integer():
        raise ValueError
    return int(value)


def _readable(annotation: Any) -> str:
    texts = []
    for option in _options(annotation):
        if get_origin(option) is Literal:
            texts.append("one of " + ", ".join(map(str, get_args(option))))
        elif option is type(None):
            texts.append("none")
        else:
            texts.append(str(option) if get_origin(option) else option.__name__)
    return " or ".join(texts)
