"""The flags of `vistok evaluate`, and what it runs."""

import argparse
from collections.abc import Callable
from pathlib import Path

_OF_MODELS = (  # flags of `vistok evaluate` that say nothing of pictures in folders
    "dataset_name",
    "dataset_config_name",
    "dataset_revision",
    "split",
    "image_column",
    "resolution",
    "update_card",
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `vistok evaluate`."""
    parser.add_argument(
        "--model",
        nargs="+",
        action="append",
        metavar="FOLDER_OR_ID",
        help="folder or Hub id of a tokenizer; once for each tokenizer, with all seeds of one together",
    )
    parser.add_argument("--reconstructions", metavar="FOLDER", help="instead: what any tokenizer has made")
    parser.add_argument("--references", metavar="FOLDER", help="the originals, of the same names")
    parser.add_argument("--dataset_name", help="Hub id, folder, Parquet files, tars or samples")
    parser.add_argument("--dataset_config_name", help="the dataset's configuration on the Hub")
    parser.add_argument("--dataset_revision", help="branch, tag or commit of the dataset")
    parser.add_argument("--split", help="split to evaluate (default: validation)")
    parser.add_argument("--image_column", help="column of the pictures; by default the first image column")
    parser.add_argument("--resolution", type=int, help="height and width in pixels; by default the model's")
    parser.add_argument(
        "--crop",
        choices=("center_crop", "adm_crop", "celeba_crop"),
        default="center_crop",
        help="how pictures are cut to size; adm_crop is that of LlamaGen's and OptVQ's figures",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="of l1, mse, psnr, ssim, ms_ssim, lpips_vgg, lpips_alex, rfid, kid, inception_score; by default "
        "all whose weights are there",
    )
    parser.add_argument("--inception_weights", metavar="FILE", help="pt_inception-2015-12-05-6726825d.pth")
    parser.add_argument(
        "--lpips_vgg_weights", metavar="FILE_OR_ID", help="torchvision's VGG16; by default from the Hub"
    )
    parser.add_argument("--lpips_alex_weights", metavar="FILE_OR_ID", help="torchvision's AlexNet")
    parser.add_argument("--batch_size", type=int, default=64, help="pictures at a time (default: 64)")
    parser.add_argument(
        "--num_workers", type=int, default=0, help="processes that decode pictures (default: 0)"
    )
    parser.add_argument("--max_samples", type=int, help="evaluate the first so many pictures only")
    parser.add_argument("--expected_samples", type=int, help="how many pictures there must be, exactly")
    parser.add_argument(
        "--on_unreadable",
        choices=("error", "skip"),
        default="error",
        help="what to do with an unreadable picture",
    )
    parser.add_argument(
        "--output_dir",
        help="folder for eval_results.json, sheet, tables and plots; by default metrics are only shown",
    )
    parser.add_argument(
        "--update_card", action="store_true", help="put the results into the model card, of a local folder"
    )


def run(flags: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Evaluates models on a split, or pictures in folders.

    Args:
        flags: The flags.
        say: Shows a line to a person.

    Raises:
        ValueError: Flags are missing or exclude each other, or what they name cannot be evaluated.
    """
    from accelerate import Accelerator

    from ..data import open_dataset
    from .command import Evaluation
    from .folders import open_folders
    from .measures import load_measures
    from .protocol import check_positive

    of_folders = flags.reconstructions is not None
    for name in ("model", "dataset_name") if not of_folders else ("references",):
        if getattr(flags, name) is None:
            raise ValueError(f"--{name} is missing; or measure pictures: --reconstructions and --references")
    if of_folders and flags.model is not None:
        raise ValueError("--model and --reconstructions exclude each other: evaluate one after the other")
    other = _OF_MODELS if of_folders else ("references",)
    for name in other:
        if getattr(flags, name) not in (None, False):
            given = "--reconstructions" if of_folders else "--model"
            raise ValueError(f"--{name} says nothing with {given}: leave it out")
    for name in ("resolution", "max_samples", "expected_samples", "batch_size"):
        check_positive(**{f"--{name}": getattr(flags, name)})
    folder = Path(flags.output_dir) if flags.output_dir is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    weights = {"vgg": flags.lpips_vgg_weights, "alex": flags.lpips_alex_weights}
    measures = load_measures(
        flags.metrics,
        inception_weights=flags.inception_weights,
        lpips_weights={trunk: file for trunk, file in weights.items() if file is not None},
        device=accelerator.device,
    )
    evaluation = Evaluation(
        measures,
        asked=flags.metrics,
        output_dir=folder,
        say=say,
        crop=flags.crop,
        batch_size=flags.batch_size,
        num_workers=flags.num_workers,
        limit=flags.max_samples,
        expected=flags.expected_samples,
        on_error=flags.on_unreadable,
    )
    if of_folders:
        evaluation.evaluate_folders(*open_folders(flags.references, flags.reconstructions))
    else:
        source = open_dataset(
            flags.dataset_name,
            split=flags.split or "validation",
            config_name=flags.dataset_config_name,
            revision=flags.dataset_revision,
            image_column=flags.image_column,
        )
        evaluation.evaluate_models(
            flags.model,
            source,
            resolution=flags.resolution,
            device=accelerator.device,
            card=flags.update_card,
        )
    accelerator.end_training()
