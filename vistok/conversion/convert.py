"""A published checkpoint becomes a folder that `VQModelHF.from_pretrained` loads."""

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id
from torch import Tensor
from transformers.utils import IMAGE_PROCESSOR_NAME

from .. import __version__
from ..messages import one_line
from ..modeling import VQModelHF
from ..pretrained import upload_tokenizer
from .base import Converted, Family, OptionError, Source, check_given
from .families import FAMILIES, find_family
from .folder import check_folder, write_folder
from .reading import read
from .sources import Located, load_settings, locate


@dataclass(frozen=True)
class Report:
    """What a conversion did; `str` of it is for people.

    Attributes:
        source: The checkpoint's path or Hub id.
        settings: The project's configuration file that was read, `"its own arguments"`, or None.
        read: Number of tensors by the name of their group in the file; `""` is the file itself.
        dropped: Number of tensors that a tokenizer does not need, by the first part of their names.
        others: What else the file holds, and was not looked at: optimizers, other networks.
        weights: Number of weights of the vistok model.
        description: Of that model.
        output_dir: The folder.
        address: Of the commit on the Hub, where it was pushed.

    Example:
        >>> read, dropped = {"model": 5}, {"loss": 2}
        >>> print(Report("x.pt", None, read, dropped, ("optimizer",), 3, "VQConfig", Path("out")))
        Read 5 tensors of 'model' in x.pt; settings: none found, the project's defaults
        Dropped 2 of them: loss 2
        Not looked at: optimizer
        Kept 3 as 3 weights of VQConfig; nothing is left over
        Wrote the tokenizer to out; VQModelHF.from_pretrained loads it from there
    """

    source: str
    settings: str | None
    read: dict[str, int]
    dropped: dict[str, int]
    others: tuple[str, ...]
    weights: int
    description: str
    output_dir: Path
    address: str | None = None

    def __str__(self) -> str:
        groups = " and ".join(
            f"{n} tensors{f' of {group!r}' * bool(group)}" for group, n in self.read.items()
        )
        dropped = ", ".join(f"{name} {count}" for name, count in self.dropped.items())
        kept = sum(self.read.values()) - sum(self.dropped.values())
        settings = self.settings or "none found, the project's defaults"
        lines = [
            f"Read {groups} in {self.source}; settings: {settings}",
            f"Dropped {sum(self.dropped.values())} of them" + (f": {dropped}" if dropped else ""),
            f"Kept {kept} as {self.weights} weights of {self.description}; nothing is left over",
            f"Wrote the tokenizer to {self.output_dir}; VQModelHF.from_pretrained loads it from there",
        ]
        if self.others:
            lines.insert(2, f"Not looked at: {', '.join(self.others)}")
        if self.address:
            lines.append(f"Pushed it to {self.address}")
        return "\n".join(lines)


def convert(
    family: str | Family,
    source: str | os.PathLike,
    *,
    output_dir: str | os.PathLike,
    config_file: str | os.PathLike | None = None,
    weights: str | None = None,
    levels: list[int] | None = None,
    scales: list[int] | None = None,
    image_size: int | None = None,
    push_to_hub: str | None = None,
) -> Report:
    """Converts a published checkpoint to a vistok folder: weights, configuration, image processor and card.

    Args:
        family: Whose layout it has; `FAMILIES` holds all.
        source: A file, a folder with one checkpoint, a Hub id `"org/name"`, or one with a file,
            `"org/name/path/file.pt"`.
        output_dir: The folder to write: new, empty, or a tokenizer, which is replaced.
        config_file: The project's YAML or JSON settings; by default what lies beside the checkpoint.
        weights: `"raw"` or `"ema"`, where a checkpoint has both.
        levels: Of FSQ, where the checkpoint does not tell.
        scales: Sides of the token maps of a multi-scale tokenizer, where the checkpoint does not tell.
        image_size: Height and width in pixels; by default what the settings or the project say.
        push_to_hub: The repository to upload to, `"org/name"`.

    Raises:
        ValueError: The checkpoint is not found, not safe to open, of another family, or has weights that are
            missing, left over, of another shape or not finite; or the folder cannot be written. Nothing is
            left behind.
    """
    family = find_family(family) if isinstance(family, str) else family
    options = {"weights": weights, "levels": levels, "scales": scales, "image_size": image_size}
    places = {"source": source, "output_dir": output_dir, "config": config_file, "push_to_hub": push_to_hub}
    check_given({**places, **options})
    options = {name: value for name, value in options.items() if value is not None}
    for name in options.keys() - {"image_size", *family.options}:
        known = ", ".join(f"--{option}" for option in ("image_size", *family.options))
        raise ValueError(f"{family.name} does not take --{name}; its options are {known}")
    folder = Path(output_dir)
    check_folder(folder)
    if push_to_hub is not None:
        _check_login(push_to_hub)
    chosen = None if config_file is None else str(config_file)
    located = locate(str(source), chosen, ask=family.needs_settings)
    if folder.resolve() in (located.weights.absolute().parent.resolve(), located.weights.resolve().parent):
        raise ValueError(f"--output_dir {folder} holds the checkpoint itself: choose a new folder")
    content = read(located.weights)
    settings = located.settings and str(located.settings)
    if content.settings and not (chosen or located.settings and family.needs_settings):
        settings = "the arguments in the file"
    elif located.settings is not None:
        content = replace(content, settings=load_settings(located.settings))
    if str(content.settings.get("model_type", "")).startswith("vistok_"):
        raise ValueError(f"{located.name} is a vistok tokenizer already: VQModelHF.from_pretrained loads it")
    groups = _Groups(content.groups)
    converted, model = _converted(family, replace(content, name=located.name, groups=groups), options)
    report = Report(
        source=located.name,
        settings=settings,
        read={group: len(groups[group]) for group in groups.used},
        dropped=_first_parts(converted.dropped),
        others=(*(group for group in groups if group not in groups.used), *content.others),
        weights=len(converted.weights),
        description=_describe(model),
        output_dir=folder,
    )
    name = push_to_hub or folder.resolve().name
    which = options.get("weights", "raw") if "weights" in family.options else ""
    write_folder(model, folder, name, {"Origin": _origin(family, located, report, which)})
    if push_to_hub is None:
        return report
    try:
        return replace(report, address=_push(folder, push_to_hub, f"Convert {located.public_name}"))
    except Exception as error:  # of whichever HTTP client huggingface_hub has
        raise ValueError(
            f"Wrote the tokenizer to {folder}, but could not push it to {push_to_hub}: {one_line(error)}"
        ) from error


class _Groups(dict[str, dict[str, Tensor]]):
    """Groups of tensors that remember which of them a family took."""

    def __init__(self, groups: dict[str, dict[str, Tensor]]):
        super().__init__(groups)
        self.used: list[str] = []

    def __getitem__(self, group: str) -> dict[str, Tensor]:
        tensors = super().__getitem__(group)
        if group not in self.used:
            self.used.append(group)
        return tensors


def _converted(family: Family, source: Source, options: dict) -> tuple[Converted, VQModelHF]:
    try:
        converted = family.convert(source, **options)
        return converted, converted.model(source.name)
    except OptionError as error:
        raise ValueError(
            f"{source.name} does not convert as {family.name} with these options: {error}"
        ) from error
    except ValueError as error:
        problem = str(error).removeprefix(f"{source.name} ")
        raise ValueError(_misfit(family, source, problem)) from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        # What a family takes for granted of its own files, another's do not have.
        raise ValueError(_misfit(family, source, f"{type(error).__name__}: {one_line(error)}")) from error


def _misfit(family: Family, source: Source, problem: str) -> str:
    """What to say of a checkpoint that does not convert: also, whose it is instead."""
    fitting = []
    for other in FAMILIES.values():
        with contextlib.suppress(Exception):  # whatever a family makes of a stranger's file
            if other is not family and other.convert(source).model(source.name):
                fitting.append(other.name)
    hint = f"; it does as {' or '.join(fitting)}" if fitting else ""
    return f"{source.name} does not convert as {family.name}{hint}: {problem}"


def _first_parts(names: list[str]) -> dict[str, int]:
    """Counts of names by their first part; one alone is named whole."""
    counts = Counter(name.split(".")[0] for name in names)
    alone = {name.split(".")[0]: name for name in names}
    return {alone[part] if n == 1 else part: n for part, n in sorted(counts.items())}


def _describe(model: VQModelHF) -> str:
    config = model.config
    return (
        f"{type(config).__name__} with {type(config.network).__name__} at {config.image_size} pixels, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )


def _origin(family: Family, located: Located, report: Report, which: str) -> str:
    """The section of the card that says where the weights are from, and `which` of several they are."""
    name = located.public_name
    known = family.published if "/" in name else ()  # anybody's own file may be called as theirs
    figures = [f"Its authors report {p.figures}." for p in known if p.source == name and p.figures]
    text = f"Converted by vistok {__version__} from `{name}`, a checkpoint of {family.project}"
    kind = f"{which} weights" if which else "weights"
    return " ".join([f"{text}: {report.weights} {kind}, nothing left over.", *figures])


def _check_login(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        HfApi().whoami()
    except Exception as error:  # of whichever HTTP client huggingface_hub has
        raise ValueError(
            f"--push_to_hub {repo_id}: {one_line(error)}; check the name, run `hf auth login` or set HF_TOKEN"
        ) from error


def _push(folder: Path, repo_id: str, title: str) -> str:
    """Uploads the folder, as `VQModelHF.push_to_hub` does: a card or image processor that is there stays."""
    stay = [name for name in ("README.md", IMAGE_PROCESSOR_NAME) if HfApi().file_exists(repo_id, name)]
    return upload_tokenizer(folder, repo_id, commit_message=title, ignore_patterns=stay)
