"""What a finished run leaves: the model, its image processor, its card with a picture, and its evaluation."""

import json
import logging
import shutil
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub import HfApi
from PIL import Image

from ..data import PictureTransform, Source, ordered_batches, to_pixel_values
from ..evaluation.model_index import update_card
from ..evaluation.report import to_json
from ..files import publish
from ..messages import one_line
from ..model_card import write_model_card
from ..modeling import VQModelHF
from ..visualization import draw_sheet
from .config import TrainingConfig
from .ranks import together

logger = logging.getLogger(__name__)


@torch.no_grad()
def draw_validation_sheet(model: VQModelHF, source: Source, config: TrainingConfig) -> Image.Image:
    """The first pictures of a split beside their reconstructions and tokens.

    Args:
        model: The tokenizer, in eval mode.
        source: The split.
        config: The settings of the run: how many pictures, and their crop.
    """
    transform, count = PictureTransform(config.resolution, config.eval_crop), config.num_validation_images
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
    sheet = draw_validation_sheet(model, source, config)
    name = config.hub_model_id or Path(config.output_dir).resolve().name

    def write(folder: Path) -> None:
        sheet.save(folder / "sheet.png")
        (folder / "eval_results.json").write_text(to_json(results), encoding="utf-8")
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
        update_card(folder, results, name)
        model.save_pretrained(folder)

    publish(Path(config.output_dir), write)


class Uploads:
    """The run's repository on the Hub: the model as it is, beside the training, and the finished one.

    Args:
        config: The settings of the run.
        accelerator: Of this process. The main one makes the repository, and alone calls the rest.

    Raises:
        ValueError: There is no permission to make the repository, or the Hub cannot be reached.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator):
        self.config = config
        self._running: Future | None = None
        together(accelerator, self._make_repository, main_only=True)

    def _make_repository(self) -> None:
        wanted = self.config.hub_model_id or Path(self.config.output_dir).resolve().name
        try:
            self.repo_id = HfApi().create_repo(wanted, exist_ok=True).repo_id
        except Exception as error:  # the HTTP client's own errors too
            raise ValueError(
                f"push_to_hub: cannot make the repository ({one_line(error)}); run `hf auth login` or set "
                "HF_TOKEN, and check --hub_model_id"
            ) from error

    def push(self, model: VQModelHF, step: int) -> None:
        """Begins to upload the model as it is now; passes over it where the last upload still runs.

        A network that fails does not stop the training: the next checkpoint tries again.

        Args:
            model: The tokenizer.
            step: Optimizer steps taken, for the commit's message.
        """
        if self._running is not None and not self._running.done():
            return
        self._report()
        folder = Path(self.config.output_dir) / ".tmp-upload"
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, repo_id=self.repo_id)
        self._running = HfApi().upload_folder(
            repo_id=self.repo_id,
            folder_path=folder,
            commit_message=f"Step {step}",
            run_as_future=True,
        )

    def finish(self) -> None:
        """Uploads the finished model, its card, sheet and evaluation as one commit.

        Raises:
            ValueError: The upload failed; the model is in the run's folder.
        """
        if self._running is not None:
            wait([self._running])
            self._report()
        shutil.rmtree(Path(self.config.output_dir) / ".tmp-upload", ignore_errors=True)
        try:
            HfApi().upload_folder(
                repo_id=self.repo_id,
                folder_path=self.config.output_dir,
                allow_patterns=["*.json", "*.safetensors", "README.md", "sheet.png"],
                ignore_patterns=["*/*"],
                commit_message="Upload the trained tokenizer",
            )
        except Exception as error:  # the HTTP client's own errors too
            raise ValueError(
                f"push_to_hub: could not upload to {self.repo_id} ({one_line(error)}); the finished model is "
                f"in {self.config.output_dir}: run `hf upload {self.repo_id} {self.config.output_dir}`"
            ) from error

    def _report(self) -> None:
        error = None if self._running is None else self._running.exception()
        self._running = None
        if error is not None:
            logger.warning("Could not upload to %s: %s", self.repo_id, one_line(error))


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
    settings.pop("num_train_epochs" if config.num_train_epochs is None else "max_train_steps")
    settings["dataset_name"] = (
        Path(config.dataset_name).name if Path(config.dataset_name).exists() else config.dataset_name
    )
    return f"{step} steps with these settings:\n\n```json\n{json.dumps(settings, indent=2)}\n```"
