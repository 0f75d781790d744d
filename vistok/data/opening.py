"""From a dataset's name to its rows: a Hub id, a folder, a file or a glob, through `datasets`."""

import contextlib
import glob
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..messages import one_line
from .columns import image_column as find_image_column
from .columns import label_column as find_label_column
from .hub import commit_on_hub, gated, is_gated
from .samples import SAMPLES, open_samples
from .sources import DatasetError, ShardedSource, Source

if TYPE_CHECKING:
    import datasets
    import pyarrow

MEMORY_BUDGET = 512 * 2**20  # bytes; as JPEG Tiny-ImageNet has 200 MB, CelebA 1.4 GB, ImageNet 140 GB
KEY_COLUMN = "__key__"  # where webdataset keeps the name of a sample
FILE_BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
FILE_BUILDERS |= dict.fromkeys(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"), "imagefolder"
)


def open_dataset(
    name: str,
    *,
    split: str,
    config_name: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    image_column: str | None = None,
    keep_columns: Sequence[str] = (),
    memory_budget: int = MEMORY_BUDGET,
) -> Source:
    """Open one split of a dataset of pictures.

    Pictures stay encoded. Sets whose files are smaller than `memory_budget`, and pictures that are files of
    their own, can be read in any order (`IndexedSource`); larger ones are streamed (`ShardedSource`).

    Args:
        name: "samples" (photographs inside the scikit-image wheel), a Hub id, a folder of pictures, a folder
            of parquet files or of webdataset tars, one such file, or a glob of them. Splits of files follow
            `datasets`' rules: `train-*.parquet`, `validation/...`; files that name no split are "train".
        split: the split's name.
        config_name: the configuration of a Hub dataset that has several.
        revision: branch, tag or commit of a Hub dataset. Its commit is part of the fingerprint.
        token: a Hub token, by default the one that `hf auth login` or HF_TOKEN gave.
        image_column: the column that holds pictures, by default the first one.
        keep_columns: further columns to read, such as captions; `Picture.columns` holds their values.
        memory_budget: bytes of undecoded pictures that may be held in memory, per process.

    Raises:
        DatasetError: there is no such dataset, split or column; it is gated, empty, corrupt or out of reach.

    Example:
        >>> open_dataset("samples", split="validation").num_rows
        128
    """
    if name == SAMPLES:
        if keep_columns:
            raise DatasetError(f"dataset {SAMPLES!r} has no further columns: leave --keep_columns out")
        return open_samples(split)
    try:
        import datasets
        from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
    except ImportError as error:
        raise DatasetError('reading a dataset needs `datasets`: pip install "vistok[train]"') from error
    with _quiet():  # the loggers repeat on several lines what DatasetError says on one
        builder = _builder(name, config_name, revision, token)
        if isinstance(builder, ImageFolder):
            # Labels are folders below the split's. `datasets` takes the split folders themselves for labels
            # and then fails on one split alone.
            first = next(iter(builder.config.data_files.values()))
            builder.config.drop_labels = len({os.path.dirname(str(file)) for file in first}) == 1 or None
        files = _files_of_split(builder, name, split)
        try:
            stream = builder.as_streaming_dataset(split=split)
            # Formats without a schema (text, JSON) know their columns only by their first row.
            columns = dict(stream.features or dict.fromkeys(next(iter(stream), {})))
        except (OSError, ValueError) as error:
            first = next(iter(builder.config.data_files.values()))[0]  # it tells the columns
            raise DatasetError(
                f"cannot read dataset {name!r}: {one_line(error)}; fetch or write {first} again"
            ) from error
        column, labels = find_image_column(columns, image_column, name), find_label_column(columns)
        missing = [kept for kept in keep_columns if kept not in columns]
        if missing:
            raise DatasetError(
                f"dataset {name!r} has no column {missing[0]!r}, its columns are: {', '.join(columns)}; "
                "check --keep_columns"
            )
        key = KEY_COLUMN if KEY_COLUMN in columns else None
        wanted = dict.fromkeys([column, labels, key, *keep_columns])  # each once, in this order
        if isinstance(columns[column], datasets.Image):
            # Not cast_column: to a stream from the Hub, `datasets` has already added threads that decode.
            stream = stream.decode(False)
        source = ShardedSource(
            stream.select_columns([each for each in wanted if each is not None]),
            column,
            labels,
            shard_names=files,
            shard_lengths=_shard_lengths(files, stream.num_shards),
            key_column=key,
            name=name,
            split=split,
            fingerprint=_fingerprint(files, config_name, split, column),
            has_labels=labels is not None,
            label_names=getattr(columns.get(labels), "names", None),
            keep_types=_arrow_types(columns, keep_columns),
            revision=_commit(files),
            config_name=config_name,
        )
        # A folder of pictures is only paths here, and to `datasets` one single shard that nobody can share.
        size = 0 if isinstance(builder, ImageFolder) else _undecoded_bytes(builder, files, split)
        return source.in_memory() if size is not None and size <= memory_budget else source


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loggers of `datasets` and `huggingface_hub` within a block."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _builder(
    name: str, config_name: str | None, revision: str | None, token: str | None
) -> "datasets.DatasetBuilder":
    """Return the `datasets` builder behind a name."""
    import datasets

    if not name.strip():
        raise DatasetError("the dataset's name is empty: give --dataset_name")
    local = Path(name).expanduser()
    try:
        if local.is_dir():  # its absolute path: a folder named "parquet" is not the builder of that name
            return datasets.load_dataset_builder(str(local.resolve()), name=config_name)
        if local.is_file() or glob.has_magic(name):
            return _builder_of_files(str(local))
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
            raise DatasetError(f"there is no file or folder {name!r}: check --dataset_name")
        commit = commit_on_hub(name, revision, token)
        return datasets.load_dataset_builder(name, name=config_name, revision=commit, token=token)
    except DatasetError:
        raise
    except FileNotFoundError as error:  # what `datasets` raises for empty, gated and missing ones alike
        if is_gated(error):
            raise gated(name) from error
        what = "folder" if local.is_dir() else "dataset"
        raise DatasetError(
            f"{what} {name!r} holds no pictures, parquet files or tars: check --dataset_name"
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot open dataset {name!r}: {one_line(error)}") from error


def _builder_of_files(pattern: str) -> "datasets.DatasetBuilder":
    """Return the builder for a file or a glob; what the glob leaves open in a path names its split."""
    import datasets

    files = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
    files = [os.path.abspath(file) for file in files if os.path.isfile(file)]
    if not files:
        raise DatasetError(f"no file matches {pattern!r}: check --dataset_name")
    suffixes = sorted({Path(file).suffix.lower() for file in files})
    kinds = {FILE_BUILDERS.get(suffix) for suffix in suffixes}
    if len(kinds) > 1 or None in kinds:
        raise DatasetError(
            f"{pattern!r} matches files of kind {', '.join(suffixes)}: give parquet files, tars or pictures, "
            "and only one kind"
        )
    root = os.path.dirname(re.split(r"[*?\[]", pattern)[0]) or "."
    by_split: dict[str, list[str]] = {}
    for file in files:
        by_split.setdefault(_split_named_in(os.path.relpath(file, root)), []).append(file)
    unnamed = by_split.pop("", [])
    if unnamed and by_split:
        raise DatasetError(
            f"{pattern!r} matches files of split {', '.join(by_split)} and files that name no split, such as "
            f"{os.path.basename(unnamed[0])}: narrow the pattern"
        )
    return datasets.load_dataset_builder(kinds.pop(), data_files=by_split or {"train": unnamed})


def _split_named_in(path: str) -> str:
    """Return the split that a relative path names by `datasets`' key words, "" for none."""
    from datasets.data_files import SPLIT_KEYWORDS

    for split, words in SPLIT_KEYWORDS.items():
        if re.search(rf"(?:^|[-._ 0-9/])(?:{'|'.join(words)})(?:[-._ 0-9/]|$)", path):
            return str(split)
    return ""


def _files_of_split(builder: "datasets.DatasetBuilder", name: str, split: str) -> list[str]:
    """Return the files or URLs of a split."""
    files = {str(key): [str(f) for f in value] for key, value in (builder.config.data_files or {}).items()}
    if split not in files:
        raise DatasetError(
            f"dataset {name!r} has no split {split!r}, it has: {', '.join(sorted(files)) or 'none'}; "
            f"choose one of them, or put files into a subfolder {split}/ or name them {split}-*"
        )
    return files[split]


def _fingerprint(files: list[str], config_name: str | None, split: str, column: str) -> str:
    """Hash what is read: names relative to their folder, and sizes; a Hub URL carries its commit."""
    local = [file for file in files if "://" not in file]
    root = os.path.commonpath([os.path.dirname(file) for file in local]) if local else ""
    entries = [[os.path.relpath(f, root), os.path.getsize(f)] if "://" not in f else [f, 0] for f in files]
    return hashlib.sha256(json.dumps([entries, config_name, split, column]).encode()).hexdigest()[:16]


def _commit(files: list[str]) -> str | None:
    """Return the commit in the addresses of files on the Hub, which `_builder` pinned."""
    found = re.match(r"hf://datasets/[^@]+@([0-9a-f]{40})/", files[0]) if files else None
    return found[1] if found else None


def _arrow_types(columns: dict[str, object], names: Sequence[str]) -> "dict[str, pyarrow.DataType]":
    """Return the Arrow types of columns; text where only reading would tell."""
    import datasets

    features = datasets.Features({name: columns[name] or datasets.Value("string") for name in names})
    return {field.name: field.type for field in features.arrow_schema}


def _shard_lengths(files: list[str], num_shards: int) -> list[int] | None:
    """Return the rows of each shard from the footers of local parquet files; None for other files."""
    if len(files) != num_shards or not all(f.endswith(".parquet") and "://" not in f for f in files):
        return None
    from pyarrow.parquet import read_metadata

    try:
        return [read_metadata(file).num_rows for file in files]
    except (OSError, ValueError):  # a corrupt file is reported with its name when it is read
        return None


def _undecoded_bytes(builder: "datasets.DatasetBuilder", files: list[str], split: str) -> int | None:
    """Return a split's size: the sum of its local files, else what the dataset's card says, else None."""
    if all("://" not in file for file in files):
        return sum(os.path.getsize(file) for file in files)
    info = (builder.info.splits or {}).get(split)
    return info.num_bytes if info is not None else None
