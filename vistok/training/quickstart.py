"""The main job on an embedded default: train a small tokenizer, reload it, turn a picture into tokens."""

import json
from pathlib import Path

import numpy as np
import torch

from ..data import PictureTransform, open_dataset, ordered_batches, to_pixel_values
from ..evaluation.protocol import format_metrics
from ..image_processing import VistokImageProcessor
from ..modeling import VQModelHF
from ..visualization import draw_sheet
from .arguments import training_config
from .loop import Trainer

_PICTURE_SIZE = 96  # pixels; the model is trained on 64, and takes any multiple of 4


def quickstart(output_dir: str) -> str:
    """Trains the recipe `quickstart`, evaluates it on crops it never saw, and writes a picture's tokens.

    One that was interrupted goes on; a finished one is evaluated again.

    Args:
        output_dir: The folder for everything it makes.

    Returns:
        What was made and what to try next, some lines of text.
    """
    folder = Path(output_dir)
    Trainer(training_config({"output_dir": output_dir, "resume_from_checkpoint": "latest"}, [])).train()

    model = VQModelHF.from_pretrained(folder).eval()
    processor = VistokImageProcessor.from_pretrained(folder)
    pictures = open_dataset("samples", split="validation")
    batch = next(ordered_batches(pictures, PictureTransform(_PICTURE_SIZE), batch_size=1, limit=1))
    pixel_values = to_pixel_values(batch["pixels"])
    with torch.no_grad():
        tokens = model.encode(pixel_values).tokens
        reconstruction = model.decode(tokens)
    np.save(folder / "picture_tokens.npy", tokens[0].numpy())
    sheet = draw_sheet(
        processor.postprocess(pixel_values),
        processor.postprocess(reconstruction),
        tokens,
        model.codebook_size,
    )
    sheet.save(folder / "picture_sheet.png")

    metrics = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))["metrics"]
    shape, size = (" x ".join(map(str, lengths)) for lengths in (tokens.shape[1:], pixel_values.shape[2:]))
    return f"""
Trained a tokenizer on crops of photographs and evaluated it on crops it never saw:
  {format_metrics(metrics, ("psnr", "ssim", "l1", "codebook_usage"))}
It made, in {folder}/
  sheet.png            validation pictures | reconstructions | tokens: open it
  picture_tokens.npy   the {shape} tokens of a picture of {size} pixels; picture_sheet.png shows them
  config.json, model.safetensors, preprocessor_config.json, README.md, eval_results.json
Try next, in the environment (after make: `. .venv/bin/activate`)
  python -c "from vistok import VQModelHF; print(VQModelHF.from_pretrained('{folder}'))"
  vistok demo --model {folder}     see it work, in the browser
  vistok train fsq_tiny_imagenet --dataset_name PATH_OR_HUB_ID     on pictures of your own
  vistok evaluate --model {folder} --dataset_name PATH_OR_HUB_ID --split validation"""
