"""What a finished run leaves: the model, its image processor, its card with a picture, and its evaluation."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from PIL import Image

from ..data import PictureTransform, Source, ordered_batches, to_pixel_values
from ..messages import one_line
from ..model_card import write_model_card
from ..modeling import VQModelHF
from ..visualization import draw_sheet
from .checkpoints import publish
from .config import TrainingConfig


@torch.no_grad()
def draw_validation_sheet(model: VQModelHF, source: Source, count: int) -> Image.Image:
    """The first pictures of a split beside their reconstructions and tokens.

    Args:
        model: The tokenizer, in eval mode.
        source: The split.
        count: Number of pictures.
    """
    transform = PictureTransform(model.config.image_size)
    batch = next(ordered_batches(source, transform, batch_size=count, limit=count, on_error="skip"), None)
    if batch is None:
        raise ValueError(
            f"{source.name}: the first {count} pictures of split {source.split!r} cannot be read"
        )
    pixel_values = to_pixel_values(batch["pixels"].to(model.device))
    out = model.encode(pixel_values)
    reconstruction = model.decode_quantized(out.quantized)
    return draw_sheet(pixel_values.cpu(), reconstruction.float().cpu(), out.tokens, model.codebook_size)


def write_results(
    model: VQModelHF, config: TrainingConfig, source: Source, results: dict[str, Any], step: int
) -> None:
    """Writes the finished model into the run's folder, all files or none.

    Args:
        model: The trained tokenizer.
        config: The settings of the run.
        source: The validation split, for the sheet.
        results: What `vistok.evaluation.evaluate` returned.
        step: Optimizer steps taken.
    """
    sheet = draw_validation_sheet(model, source, config.num_validation_images)
    name = config.hub_model_id or Path(config.output_dir).resolve().name

    def write(folder: Path) -> None:
        sheet.save(folder / "sheet.png")
        (folder / "eval_results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        write_model_card(
            model,
            folder,
            name=name,
            sections={
                "Reconstructions": "Validation pictures, reconstructions and tokens.\n\n![](sheet.png)",
                "Evaluation": _evaluation_table(results),
                "Training": _training_text(config, step),
            },
            datasets=[config.dataset_name]
            if config.dataset_name.count("/") == 1 and not Path(config.dataset_name).exists()
            else None,
        )
        model.save_pretrained(folder)

    publish(Path(config.output_dir), write)


def make_repository(config: TrainingConfig) -> str:
    """Makes the run's repository on the Hub where it is not there yet.

    Raises:
        ValueError: There is no permission to, or the Hub cannot be reached.
    """
    try:
        return HfApi().create_repo(config.hub_model_id or Path(config.output_dir).name, exist_ok=True).repo_id
    except Exception as error:  # the HTTP client's own errors too
        raise ValueError(
            f"push_to_hub: cannot make the repository ({one_line(error)}); run `hf auth login` or set "
            "HF_TOKEN, and check --hub_model_id"
        ) from error


def upload_results(config: TrainingConfig) -> None:
    """Uploads the finished model, its card, sheet and evaluation as one commit."""
    HfApi().upload_folder(
        repo_id=make_repository(config),
        folder_path=config.output_dir,
        allow_patterns=["*.json", "*.safetensors", "README.md", "sheet.png"],
        ignore_patterns=["*/*"],
        commit_message="Upload the trained tokenizer",
    )


def _evaluation_table(results: dict[str, Any]) -> str:
    protocol = results["protocol"]
    rows = [f"| {name} | {value:.6g} |" for name, value in results["metrics"].items()]
    return "\n".join(
        [
            f"On {protocol['pictures']} pictures of `{Path(protocol['dataset']).name}`, split "
            f"{protocol['split']}, {protocol['resolution']} pixels square: {protocol['preprocessing']}; "
            f"{protocol['rounding']}. `eval_results.json` holds the whole protocol.",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
        ]
    )


def _training_text(config: TrainingConfig, step: int) -> str:
    settings = config.to_dict()
    settings.pop("output_dir")
    settings["dataset_name"] = (
        Path(config.dataset_name).name if Path(config.dataset_name).exists() else config.dataset_name
    )
    return f"{step} steps with these settings:\n\n```json\n{json.dumps(settings, indent=2)}\n```"
