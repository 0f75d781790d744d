"""How a tokenizer is loaded, saved and published: whole, or not at all."""

import os
import tempfile
from collections.abc import Callable
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME
from transformers.utils.hub import extract_commit_hash

from .configuration import UnknownModelTypeError

# Writers of what belongs beside a model's weights (image processor, card), added by higher layers. Each is
# called with the model, the folder and the name that users will load it by, and leaves what is there alone.
COMPANIONS: list[Callable[["PreTrainedTokenizerModel", Path, str], None]] = []
# Loaders of folders that no vistok wrote, added by higher layers: each is called with the name and the
# keyword arguments of `from_pretrained`, and returns a model, or None where it knows nothing of the folder.
FOREIGN_LOADERS: list[Callable[[str, dict[str, Any]], "PreTrainedModel | None"]] = []


class PreTrainedTokenizerModel(PreTrainedModel):
    """A model that refuses damaged and ill-fitting weights, and is saved with all that belongs to it."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs
    ):
        """Loads a tokenizer from a folder or a Hub repository; see `PreTrainedModel.from_pretrained`.

        Only safetensors files are read, and every weight must be there. `config._commit_hash` is the commit
        of the Hub that was loaded, None of a folder.

        Raises:
            ValueError: A weight is missing, left over, of another shape or not finite, a file is damaged, or
                an override is no field or out of range.
        """
        kwargs["use_safetensors"] = True
        tolerant = kwargs.pop("ignore_mismatched_sizes", False)
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path,
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        except (
            SafetensorError,
            JSONDecodeError,
            KeyError,
        ) as error:  # of a weights file, or of the index of several
            raise ValueError(
                f"The weights of {pretrained_model_name_or_path} are damaged or incomplete ({error}): "
                "save or download them again"
            ) from error
        except UnknownModelTypeError:
            model = _foreign(os.fspath(pretrained_model_name_or_path), kwargs)
            if model is None:
                raise
            info = {kind: set() for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
            model.config._commit_hash = _commit(os.fspath(pretrained_model_name_or_path), kwargs)
            return (model, info) if output_loading_info else model
        info["not_finite_keys"] = {
            name
            for name, state in model.state_dict().items()
            if not (state.is_meta or state.isfinite().all())  # meta: left on the disk by a device_map
        }
        problems = [
            f"{text} {', '.join(sorted(key[0] if isinstance(key, tuple) else key for key in info[kind]))}"
            for kind, text in (
                ("missing_keys", "missing"),
                ("unexpected_keys", "left over"),
                ("mismatched_keys", "of another shape"),
                ("not_finite_keys", "not finite"),
            )
            if info.get(kind) and not (tolerant and kind == "mismatched_keys")
        ]
        if problems:
            raise ValueError(
                f"The weights of {pretrained_model_name_or_path} do not fit {type(model.config).__name__}: "
                f"{'; '.join(problems)}"
            )
        as_channels_last(model)
        model.config._commit_hash = _commit(os.fspath(pretrained_model_name_or_path), kwargs)
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, *, push_to_hub: bool = False, **kwargs
    ) -> None:
        """Saves weights and configuration, and image processor and model card where they are not there yet.

        Args:
            save_directory: The folder; made if needed.
            push_to_hub: Whether to upload it too, to `repo_id` or the folder's name.
            kwargs: What `PreTrainedModel.save_pretrained` and `push_to_hub` take.
        """
        hub_kwargs = {name: kwargs.pop(name) for name in ("repo_id", *_HUB_KWARGS) if name in kwargs}
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            folder = Path(save_directory)
            _delete_stale_weights(folder)
            name = hub_kwargs.pop("repo_id", folder.resolve().name)
            for write in COMPANIONS:
                write(self, folder, name)
            if push_to_hub:
                upload_tokenizer(folder, name, **hub_kwargs)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None, **kwargs
    ) -> str:
        """Uploads weights, configuration, image processor and card as one commit.

        An image processor or a card that the repository has already is left as it is.

        Args:
            repo_id: The repository, `"org/name"`; made if needed.
            private: Whether a new repository is private.
            token: The token to authenticate with; by default the one stored by `hf auth login`.
            kwargs: `commit_message`, `commit_description`, `revision` or `create_pr` of the commit;
                `max_shard_size`.

        Returns:
            The address of the commit.
        """
        save_kwargs = {name: kwargs.pop(name) for name in ("max_shard_size",) if name in kwargs}
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id, **save_kwargs)
            for name in (IMAGE_PROCESSOR_NAME, "README.md"):
                if api.file_exists(repo_id, name, revision=kwargs.get("revision")):
                    (Path(folder) / name).unlink(missing_ok=True)
            return upload_tokenizer(Path(folder), repo_id, private=private, token=token, **kwargs)


def _commit(name: str, kwargs: dict[str, Any]) -> str | None:
    """The commit of a Hub repository that has just been loaded; transformers keeps it to itself."""
    if os.path.isdir(name):
        return None
    config = os.path.join(kwargs.get("subfolder") or "", CONFIG_NAME)
    path = try_to_load_from_cache(name, config, kwargs.get("cache_dir"), kwargs.get("revision"))
    return extract_commit_hash(path, None) if isinstance(path, str) else None


def _foreign(name: str, arguments: dict[str, Any]) -> PreTrainedModel | None:
    arguments = {key: value for key, value in arguments.items() if key != "use_safetensors"}
    loaded = (load(name, arguments) for load in FOREIGN_LOADERS)
    return next((model for model in loaded if model is not None), None)


def as_channels_last(model: PreTrainedModel) -> None:
    """Lays the kernels of 2-D convolutions out as a CPU and tensor cores compute with them fastest.

    Not by `model.to`: a model that a `device_map` spread over devices refuses that.
    """
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def upload_tokenizer(
    folder: Path, repo_id: str, private: bool | None = None, token: str | bool | None = None, **kwargs
) -> str:
    """Uploads what belongs to a tokenizer from a folder as one commit, and returns the commit's address."""
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    kwargs.setdefault("commit_message", "Upload tokenizer")
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=["config.json", _ONE_FILE, _INDEX, _SHARDS, IMAGE_PROCESSOR_NAME, "README.md"],
        delete_patterns=[_ONE_FILE, _INDEX, _SHARDS],
        **kwargs,
    )
    return commit.commit_url


def _delete_stale_weights(folder: Path) -> None:
    # transformers deletes the shards of an earlier save, but not its single file, which loading would prefer.
    (folder / (_ONE_FILE if any(folder.glob(_SHARDS)) else _INDEX)).unlink(missing_ok=True)


_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARDS = "model-*-of-*.safetensors"
_HUB_KWARGS = ("private", "token", "commit_message", "commit_description", "revision", "create_pr")
