"""The layouts that other projects' generators read, made from shards: LlamaGen, 1d-tokenizer, webdataset.

LlamaGen (github.com/FoundationVision/LlamaGen, `dataset/imagenet.py`) reads two `.npy` files a picture, and
picks one of its views where the path says "flip". RAR and MaskGIT in 1d-tokenizer
(github.com/bytedance/1d-tokenizer) read a line of JSON for each view.
"""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..files import flush, temporary_beside
from .manifest import open_complete
from .plan import Plan
from .shard_reading import is_text, read_table, token_array

PICTURES_PER_TAR = 10_000
CAPTIONS = ("caption", "text", "txt")  # names of a column of captions: the first that is kept is taken


@dataclass
class TokenPicture:
    """A picture on its way out.

    `index` counts those that are exported. `where`: its row in words, for messages. `tokens`: int64 `(V, L)`.
    `columns`: the dataset's columns that were kept. `caption`: that of them, "" where it is null, None where
    no column of captions was kept.
    """

    index: int
    where: str
    key: str
    label: int | None
    tokens: np.ndarray
    columns: dict[str, Any]
    caption: str | None


def export(
    layout: str, tokens: str | Path, output_dir: str | Path, *, skip_unreadable: bool = False
) -> dict[str, Any]:
    """Writes a dataset of tokens in another project's layout; columns that were kept go into webdataset's.

    Args:
        layout: A key of `LAYOUTS`: `"llamagen"`, `"jsonl"` or `"webdataset"`.
        tokens: The folder of the tokens, complete.
        output_dir: The folder to write, which must not hold what is written; it appears when all is there.
        skip_unreadable: Leave pictures without tokens out and count the others on; otherwise they are an
            error, because these layouts have no place for them.

    Returns:
        `path`, `pictures` and `views`.

    Raises:
        ValueError: The tokens, a label or a kept column cannot be expressed in the layout, or the output is
            there already.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    folder = Path(tokens)
    plan = open_complete(folder)
    if plan.has_buckets:
        raise ValueError("Pictures of several shapes cannot be exported: these layouts have one length")
    if layout != "webdataset" and not plan.values["dataset"]["has_labels"]:
        raise ValueError(f"The layout {layout} needs labels, and the dataset has none: use webdataset")
    name, write = LAYOUTS[layout]
    final = Path(output_dir) / name(plan)
    if final.exists():
        raise ValueError(f"{final} is there already: delete it, or choose another output_dir")
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    try:
        count = write(temporary, plan, pictures(folder, plan, skip_unreadable))
        os.sync()  # one call for a million files
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        raise
    flush(final.parent)
    return {"path": str(final), "pictures": count, "views": len(plan.views.names)}


def pictures(folder: Path, plan: Plan, skip_unreadable: bool = False) -> Iterator[TokenPicture]:
    """Yield the pictures of a dataset in their order, each with its views.

    Raises:
        ValueError: A picture has no tokens, and `skip_unreadable` is False.
    """
    views = len(plan.views.names)
    index = 0
    for shard in plan.shards:
        table = read_table(folder, plan, shard)
        tokens = token_array(table).astype(np.int64)
        status, labels = table["status"].to_pylist(), table["label"].to_pylist()
        keys, rows = table["key"].to_pylist(), table["row"].to_pylist()
        kept = {name: table[name].to_pylist() for name in plan.values["dataset"]["keep_columns"]}
        texts = [name for name in CAPTIONS if name in kept and is_text(table[name].type)]
        for first in range(0, len(table), views):
            where = plan.where(shard, rows[first])
            if status[first] and not skip_unreadable:
                raise ValueError(
                    f"{where} has no tokens, for its picture could not be read: "
                    "leave such pictures out with --skip_unreadable, which counts the others on"
                )
            if not status[first]:
                key = keys[first] or f"{shard.file}-{rows[first]}"
                columns = {name: values[first] for name, values in kept.items()}
                caption = columns[texts[0]] or "" if texts else None
                every = tokens[first : first + views]
                yield TokenPicture(index, where, key, labels[first], every, columns, caption)
                index += 1


def _llamagen_name(plan: Plan) -> str:
    views = plan.values["preprocessing"]
    if len(views["views"]) == 1:
        return "imagenet_code_c2i"
    # LlamaGen looks for "flip" to pick a view, and for "ten_crop/" beside "ten_crop_105/" to mix two ranges.
    ten_crop = len(views["views"]) == 10
    narrow = ten_crop and views["crop_range"] == 1.05
    return f"imagenet_code_c2i_flip{'_ten_crop' if ten_crop else ''}{'_105' if narrow else ''}"


def _llamagen(path: Path, plan: Plan, rows: Iterator[TokenPicture]) -> int:
    """`imagenet{S}_codes/{i}.npy`, int64 `(1, V, L)`, and `imagenet{S}_labels/{i}.npy`, int64 `(1,)`."""
    side = plan.values["preprocessing"]["resolution"]
    folders = [path / f"imagenet{side}_{what}" for what in ("codes", "labels")]
    for folder in folders:
        folder.mkdir(parents=True)
    count = 0
    for picture in rows:
        values = (picture.tokens[None], np.array([_class_of(picture)]))
        for folder, value in zip(folders, values, strict=True):
            np.save(folder / f"{picture.index}.npy", value)
        count += 1
    return count


def _jsonl(path: Path, plan: Plan, rows: Iterator[TokenPicture]) -> int:
    """A line for each view: `{"class_id": 3, "tokens": [...]}`."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for picture in rows:
            for tokens in picture.tokens:
                file.write(json.dumps({"class_id": _class_of(picture), "tokens": tokens.tolist()}) + "\n")
            count += 1
    return count


def _class_of(picture: TokenPicture) -> int:
    """A class that a generator can be conditioned on."""
    if picture.label < 0:
        raise ValueError(
            f"{picture.where} has no label ({picture.label}), and these readers take any label for a class: "
            "extract pictures with labels, or use webdataset"
        )
    return picture.label


def _webdataset(path: Path, plan: Plan, rows: Iterator[TokenPicture]) -> int:
    """Tars of samples, all of the same members; captions lie where img2dataset puts them.

    `.npy` holds the tokens, unsigned `(V, L)`; `.json` the key and the columns that were kept; `.txt` the
    caption, where a column of captions was kept; `.cls` the label, where the dataset has labels, -1 of a
    picture without one.
    """
    path.mkdir()
    count = 0
    while some := list(islice(rows, PICTURES_PER_TAR)):
        with tarfile.open(path / f"{count // PICTURES_PER_TAR:06d}.tar", "w") as tar:
            for picture in some:
                _add_sample(tar, picture, plan.token_dtype)
        count += len(some)
    return count


def _add_sample(tar: tarfile.TarFile, picture: TokenPicture, dtype: str) -> None:
    array = io.BytesIO()
    np.save(array, picture.tokens.astype(dtype))
    try:
        about = json.dumps({"key": picture.key, **picture.columns}, ensure_ascii=False, default=_as_text)
    except TypeError as error:
        raise ValueError(
            f"{picture.where} has {error} in a column that was kept, which JSON cannot hold: extract without "
            "that column, or read it from the shards"
        ) from error
    members = {"npy": array.getvalue(), "json": about.encode()}
    if picture.caption is not None:
        members["txt"] = picture.caption.encode()
    if picture.label is not None:
        members["cls"] = str(picture.label).encode()
    for suffix, data in members.items():
        member = tarfile.TarInfo(f"{picture.index:09d}.{suffix}")  # without a time: equal bytes each time
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _as_text(value: Any) -> str:
    if isinstance(value, date | time | timedelta | Decimal):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")


# Layout -> the name of what it writes below the output folder, and its writer.
LAYOUTS: dict[str, tuple[Callable[[Plan], str], Callable[[Path, Plan, Iterator[TokenPicture]], int]]] = {
    "llamagen": (_llamagen_name, _llamagen),
    "jsonl": (lambda plan: "tokens.jsonl", _jsonl),
    "webdataset": (lambda plan: "webdataset", _webdataset),
}
