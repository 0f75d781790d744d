"""Where a checkpoint and the settings beside it lie: a file or folder here, or a repository on the Hub."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from ..messages import one_line
from .shards import INDEX, shards_of

_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:/(?P<file>[^/].*))?")
_MAX_SETTINGS = 10**6  # bytes, and values that are written out behind the aliases of a YAML file


@dataclass(frozen=True)
class Located:
    """A checkpoint on this machine.

    Attributes:
        name: As the user named it: a path, a Hub id, or one with a file.
        public_name: The same without the folders of this machine, for cards and commits.
        weights: The file of its tensors, or the index of several.
        settings: The project's configuration file beside it, if there is one.
    """

    name: str
    public_name: str
    weights: Path
    settings: Path | None = None


def locate(source: str, settings: str | None = None, ask: bool = True) -> Located:
    """Finds a checkpoint, downloading it into the cache of `huggingface_hub` where needed.

    Args:
        source: A file, a folder with one checkpoint, `"org/name"` or `"org/name/path/file.pt"`.
        settings: The project's configuration file; by default the one beside the checkpoint.
        ask: Whether several beside the checkpoint are refused; otherwise none of them counts.

    Raises:
        ValueError: It is not there, not to be reached, or it is not clear which file is meant.
    """
    path = Path(source).expanduser()
    if settings is not None and not Path(settings).is_file():
        raise ValueError(f"--config: there is no file {settings}")
    if path.exists():
        return _beside(source, path, settings, ask, public_name=path.resolve().name)
    hub_id = _HUB_ID.fullmatch(source)
    if hub_id is None or path.suffix in _WEIGHTS and source.count("/") < 2:
        raise ValueError(f"There is no file or folder {source}")
    try:
        return _on_the_hub(hub_id["repo"], hub_id["file"], settings, ask)
    except GatedRepoError as error:
        raise ValueError(
            f"{hub_id['repo']} is gated: ask for access at https://huggingface.co/{hub_id['repo']}, "
            "then `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"{source} is no file or folder here, and the Hub shows you no repository {hub_id['repo']}"
        ) from error


def _beside(name: str, path: Path, settings: str | None, ask: bool, public_name: str) -> Located:
    """A checkpoint of this machine; `path` is its file or folder."""
    if path.is_dir():
        path = path / _pick_weights([p.name for p in path.iterdir() if p.is_file()], str(path))
    if settings is None:
        for folder in _folders(path.parent):
            names = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
            if found := _pick_settings(names, path.stem, str(folder), ask):
                return Located(name, public_name, path, folder / found)
    return Located(name, public_name, path, None if settings is None else Path(settings))


def _on_the_hub(repo: str, file: str | None, settings: str | None, ask: bool) -> Located:
    try:
        info = HfApi().model_info(repo)
    except (HfHubHTTPError, HFValidationError):
        raise
    except Exception as error:  # offline, or an error of whichever HTTP client huggingface_hub has
        return _in_the_cache(repo, file, settings, ask, error)
    name = "/".join(filter(None, (repo, file)))
    files = [sibling.rfilename for sibling in info.siblings or []]
    if file is None:
        file = _pick_weights([name for name in files if "/" not in name], repo)
    elif file not in files:
        others = ", ".join(name for name in files if name.endswith(_WEIGHTS)) or "none"
        raise ValueError(f"{repo} on the Hub has no file {file}; its checkpoints are: {others}")
    found = None
    for folder in _folders(PurePosixPath(file).parent) if settings is None else ():
        names = [PurePosixPath(name).name for name in files if PurePosixPath(name).parent == folder]
        if found := _pick_settings(names, PurePosixPath(file).stem, f"{repo}/{folder}", ask):
            found = str(folder / found)
            break
    try:
        # By branch: by commit they would not be found again offline.
        weights = Path(hf_hub_download(repo, file))
        for shard in sorted(set(shards_of(weights).values())) if file.endswith(INDEX) else ():
            hf_hub_download(repo, str(PurePosixPath(file).with_name(shard)))
        beside = hf_hub_download(repo, found) if found else settings
    except RepositoryNotFoundError:  # which a gated one is too
        raise
    except Exception as error:  # as above, and a full disk
        raise ValueError(f"Could not download {file} of {repo}: {one_line(error)}") from error
    return Located(name, name, weights, None if beside is None else Path(beside))


def _in_the_cache(repo: str, file: str | None, settings: str | None, ask: bool, reason: Exception) -> Located:
    name = "/".join(filter(None, (repo, file)))
    try:
        if file is None:
            path = Path(snapshot_download(repo, local_files_only=True))
        else:
            path = Path(hf_hub_download(repo, file, local_files_only=True))
    except (EntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name} is no file or folder here, nor in the cache of the Hub, "
            f"which cannot be reached: {one_line(reason)}"
        ) from error
    return _beside(name, path, settings, ask, public_name=name)


def _folders(folder: Any) -> tuple:
    """Where settings are looked for: runs of taming-transformers keep them beside `checkpoints/`."""
    return (folder, folder.parent / "configs") if folder.name == "checkpoints" else (folder,)


def _pick_weights(names: list[str], where: str) -> str:
    found = sorted(name for name in names if name.endswith(_WEIGHTS))
    if "model.safetensors" in found:
        return "model.safetensors"
    if f"model{INDEX}" in names:
        return f"model{INDEX}"
    if len(found) != 1:
        these = f"several checkpoints ({', '.join(found)}): name one" if found else "no checkpoint"
        raise ValueError(f"{where} holds {these}")
    return found[0]


def _pick_settings(names: Iterable[str], stem: str, where: str, ask: bool) -> str | None:
    names = sorted(names)
    found = [name for name in names if name.endswith((".yaml", ".yml"))]
    for name in (f"{stem}.yaml", "config.yaml", "model.yaml"):
        if name in found:
            return name
    if len(found) > 1 and ask:
        raise ValueError(f"{where} holds several settings files ({', '.join(found)}): say which by --config")
    found = found if len(found) == 1 else []
    return next(iter(found), "config.json" if "config.json" in names else None)


def load_settings(path: Path) -> dict[str, Any]:
    """The content of a project's configuration file, YAML or JSON.

    Raises:
        ValueError: It cannot be read, holds no settings, or Python objects.
    """
    try:
        if path.stat().st_size > _MAX_SETTINGS:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        _count(settings)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"The settings {path} cannot be read: {one_line(error)}") from error
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"The settings {path} hold one {type(settings).__name__}, not names and values")
    return settings or {}


def _count(settings: Any) -> None:
    """Refuses aliases that repeat or hold themselves without end."""
    waiting, seen = [settings], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MAX_SETTINGS // 10:
            raise ValueError("its aliases stand for more than anybody could have written")
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
