"""The flags of `vistok extract`, `verify`, `export` and `decode`, and what they run."""

import argparse
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..messages import one_line
from .decoding import FORMATS
from .encoding import DTYPES, PROBED
from .exporters import LAYOUTS
from .layout import TOKEN_ORDERS
from .verify import SAMPLES
from .views import FIXED_CROPS, VIEWS

if TYPE_CHECKING:
    from ..data import Source
    from ..modeling import VQModelHF
    from .views import Views


def add_extract_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `vistok extract`."""
    parser.add_argument("--model", required=True, help="folder or Hub id of the tokenizer")
    parser.add_argument("--model_revision", help="branch, tag or commit of the tokenizer")
    parser.add_argument("--output_dir", required=True, help="folder of the tokens; shared by all workers")
    _add_dataset_flags(parser, required=True)
    parser.add_argument("--split", default="train", help="split to extract (default: train)")
    parser.add_argument("--keep_columns", nargs="+", default=[], help="columns to copy into the shards")
    parser.add_argument(
        "--views",
        choices=list(VIEWS),
        default="center",
        help="what is encoded of a picture (default: center)",
    )
    parser.add_argument(
        "--crop",
        choices=FIXED_CROPS,
        help=f"how a picture becomes a square (default: {FIXED_CROPS[0]}, as LlamaGen and RAR)",
    )
    parser.add_argument("--crop_range", type=float, help="side of the square of ten crops (default: 1.1)")
    parser.add_argument("--resolution", type=int, help="height and width in pixels; by default the model's")
    parser.add_argument(
        "--buckets", nargs="+", metavar="HxW", help="several shapes, each picture in the nearest: 256x256 ..."
    )
    parser.add_argument(
        "--token_order", choices=TOKEN_ORDERS, default="place_major", help="of several codebooks"
    )
    parser.add_argument("--shard_size", type=int, default=4096, help="pictures in a shard (default: 4096)")
    parser.add_argument(
        "--dtype", choices=list(DTYPES), default="fp32", help="of the network; bf16 changes some tokens"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="views in a batch (default: 64)")
    parser.add_argument(
        "--on_error",
        choices=("error", "skip"),
        default="error",
        help="at an unreadable picture: stop, or keep its place without tokens",
    )
    parser.add_argument("--worker_index", type=int, help="which of the workers this is, from 0")
    parser.add_argument("--num_workers", type=int, help="how many workers share the output folder")
    parser.add_argument("--decode_threads", type=int, help="threads that decode; by default one a core")
    parser.add_argument("--device", help="where to encode; by default a GPU if there is one")


def add_verify_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `vistok verify`."""
    parser.add_argument("tokens", help="folder of the tokens")
    parser.add_argument("--model", help="the tokenizer; by default the one that the plan names")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="pictures to encode again; 0: none")
    parser.add_argument("--device", help="where to encode; by default a GPU if there is one")
    _add_dataset_flags(parser, required=False)


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `vistok export`."""
    parser.add_argument("layout", choices=list(LAYOUTS), help="whose layout to write")
    parser.add_argument("tokens", help="folder of the tokens")
    parser.add_argument("--output_dir", required=True, help="folder to write into")
    parser.add_argument(
        "--skip_unreadable", action="store_true", help="leave pictures without tokens out instead of stopping"
    )


def add_decode_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `vistok decode`."""
    parser.add_argument("tokens", help="folder of the tokens")
    parser.add_argument("--model", help="the tokenizer; by default the one that the plan names")
    parser.add_argument("--output", required=True, help="new folder for png, new file for npz")
    parser.add_argument("--format", choices=FORMATS, default="png", help="what to write (default: png)")
    parser.add_argument("--limit", type=int, help="decode the first so many rows only")
    parser.add_argument("--batch_size", type=int, default=64, help="rows at a time (default: 64)")
    parser.add_argument("--device", help="where to decode; by default a GPU if there is one")


def run_extract(flags: argparse.Namespace) -> Iterator[str]:
    """Extracts; yields the lines to show."""
    from .extract import extract
    from .plan import Plan

    model = _model(flags.model, flags.device, flags.model_revision)
    # `accelerate launch` and torchrun say which process this is; nothing is sent between processes.
    index = int(os.environ.get("RANK", 0)) if flags.worker_index is None else flags.worker_index
    count = int(os.environ.get("WORLD_SIZE", 1)) if flags.num_workers is None else flags.num_workers
    manifest = extract(
        model,
        _source(flags, flags.dataset_name, flags.split, flags.keep_columns),
        flags.output_dir,
        views=_views(flags, model.config.image_size),
        batch_size=flags.batch_size,
        dtype=flags.dtype,
        token_order=flags.token_order,
        shard_size=flags.shard_size,
        on_error=flags.on_error,
        worker_index=index,
        num_workers=count,
        decode_threads=flags.decode_threads,
    )
    if flags.dtype != "fp32":
        share = Plan.read(flags.output_dir).values["numerics"]["share_differing_from_float32"]
        pictures = min(PROBED, manifest["pictures"])
        yield f"{share:.2%} of the tokens differ from those of fp32, by the first {pictures:,} pictures"
    for reason, pictures in manifest["unreadable"].items():
        yield f"Unreadable, {reason}: {pictures:,} pictures, which have a place and no tokens"
    yield (
        f"Wrote the tokens of {manifest['pictures']:,} pictures ({manifest['rows']:,} views) to "
        f"{flags.output_dir}; vistok.extraction.load_tokens reads them"
    )


def run_verify(flags: argparse.Namespace) -> Iterator[str]:
    """Verifies; yields the lines to show.

    Raises:
        ValueError: There are problems, which have been shown.
    """
    from .plan import Plan
    from .verify import verify

    if flags.samples < 0:
        raise ValueError(f"--samples must be at least 0, got {flags.samples}")
    plan = Plan.read(flags.tokens)
    model = source = None
    if flags.samples:
        try:
            named = plan.values["tokenizer"]
            model = _model(
                flags.model or named["name"], flags.device, None if flags.model else named["revision"]
            )
            dataset = plan.values["dataset"]
            for name in ("revision", "config_name", "image_column"):  # as they were, where nothing is said
                flag = name if name == "image_column" else f"dataset_{name}"
                if getattr(flags, flag) is None:
                    setattr(flags, flag, dataset[name])
            name = flags.dataset_name or dataset["name"]
            source = _source(flags, name, dataset["split"], dataset["keep_columns"])
        except (ValueError, OSError) as error:
            raise ValueError(
                f"Cannot encode a sample again: {error}; say where they are with --model and --dataset_name, "
                "or leave it out with --samples 0"
            ) from error
    found = verify(flags.tokens, model=model, source=source, samples=flags.samples)
    if found.problems:
        yield from found.problems[:20]
        if len(found.problems) > 20:
            yield f"and {len(found.problems) - 20:,} more"
        count = f"{len(found.problems):,} problem{'s' if len(found.problems) > 1 else ''}"
        raise ValueError(f"found {count}: delete the shards named, and extract again as before")
    yield f"{found.shards:,} shards, {found.pictures:,} pictures, {found.tokens:,} tokens: as recorded"
    if found.encoded_again:
        yield f"{found.encoded_again:,} tokens encoded again: {found.differing:,} differ"


def run_export(flags: argparse.Namespace) -> Iterator[str]:
    """Exports; yields the lines to show."""
    from .exporters import export

    done = export(flags.layout, flags.tokens, flags.output_dir, skip_unreadable=flags.skip_unreadable)
    yield f"Wrote {done['pictures']:,} pictures with {done['views']} views each to {done['path']}"
    if flags.layout == "llamagen" and done["pictures"] != 1_281_167:
        yield f"LlamaGen's reader counts to 1,281,167: set {done['pictures']} in its dataset/imagenet.py"


def run_decode(flags: argparse.Namespace) -> Iterator[str]:
    """Decodes; yields the lines to show."""
    from .decoding import decode_tokens
    from .plan import Plan

    named = Plan.read(flags.tokens).values["tokenizer"]
    model = _model(flags.model or named["name"], flags.device, None if flags.model else named["revision"])
    done = decode_tokens(
        flags.tokens,
        model,
        flags.output,
        format=flags.format,
        limit=flags.limit,
        batch_size=flags.batch_size,
    )
    yield f"Wrote {done['pictures']:,} pictures to {done['path']}"


def _add_dataset_flags(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--dataset_name", required=required, help="Hub id, folder, Parquet files, tars or samples"
    )
    parser.add_argument("--dataset_config_name", help="the dataset's configuration on the Hub")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    parser.add_argument("--image_column", help="column of the pictures; by default the first image column")


def _source(flags: argparse.Namespace, name: str, split: str, keep_columns: list[str]) -> "Source":
    from ..data import open_dataset

    return open_dataset(
        name,
        split=split,
        config_name=flags.dataset_config_name,
        revision=flags.dataset_revision,
        image_column=flags.image_column,
        keep_columns=keep_columns,
        memory_budget=0,
    )


def _views(flags: argparse.Namespace, image_size: int) -> "Views":
    """The views; a flag that would do nothing beside another is refused."""
    from .views import Views

    asked = {
        name: getattr(flags, name)
        for name in ("resolution", "crop", "crop_range")
        if getattr(flags, name) is not None
    }
    idle = [name for name in ("resolution", "crop") if flags.buckets and name in asked]
    if idle:
        raise ValueError(f"--{idle[0]} says nothing beside --buckets, which are cut at the centre")
    if "crop_range" in asked and flags.views != "ten_crop":
        raise ValueError("--crop_range says nothing without --views ten_crop")
    buckets = tuple(_size(text) for text in flags.buckets or ())
    return Views(**{"resolution": image_size, **asked}, kind=flags.views, buckets=buckets)


def _model(name: str, device: str | None, revision: str | None = None) -> "VQModelHF":
    import torch

    from ..modeling import VQModelHF

    if device is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = f"{found.type}:{os.environ.get('LOCAL_RANK', 0)}" if found else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises an AssertionError
        raise ValueError(f"--device {device}: {one_line(error, 200)}") from error
    revision_of = {} if revision is None else {"revision": revision}
    return VQModelHF.from_pretrained(name, dtype=torch.float32, **revision_of).to(device).eval()


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"buckets must be HEIGHTxWIDTH, such as 256x256, got {text!r}")
    return int(match[1]), int(match[2])
