"""The main job on an embedded default: train a small tokenizer, reload it, turn a picture into tokens."""

import json
import shutil
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


@torch.no_grad()
def quickstart(output_dir: str) -> str:
    """Trains the recipe `quickstart`, evaluates it on crops it never saw, and writes a picture's tokens.

    A finished quickstart in the folder is replaced; one that was interrupted goes on.

    Args:
        output_dir: The folder for everything it makes.

    Returns:
        What was made and what to try next, some lines of text.
    """
    folder = Path(output_dir)
    if (folder / "eval_results.json").exists():
        shutil.rmtree(folder)
    Trainer(training_config({"output_dir": output_dir, "resume_from_checkpoint": "latest"}, [])).train()

    model = VQModelHF.from_pretrained(folder).eval()
    processor = VistokImageProcessor.from_pretrained(folder)
    batch = next(
        iter(
            ordered_batches(
                open_dataset("samples", split="validation"), PictureTransform(256), batch_size=1, limit=1
            )
        )
    )
    pixel_values = to_pixel_values(batch["pixels"])
    tokens = model.encode(pixel_values).tokens
    np.save(folder / "picture_tokens.npy", tokens[0].numpy())
    pictures = [processor.postprocess(pixels)[0] for pixels in (pixel_values, model.decode(tokens))]
    draw_sheet(pictures[:1], pictures[1:], tokens, model.codebook_size).save(folder / "picture_sheet.png")

    metrics = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))["metrics"]
    shape = " x ".join(map(str, tokens.shape[1:]))
    return f"""
Trained a tokenizer on crops of photographs and evaluated it on crops it never saw:
  {format_metrics(metrics, ("psnr", "ssim", "l1", "codebook_usage"))}
It made, in {folder}/
  sheet.png            validation pictures | reconstructions | tokens: open it
  picture_tokens.npy   the {shape} tokens of a 256 x 256 picture, and picture_sheet.png to look at
  config.json, model.safetensors, preprocessor_config.json, README.md, eval_results.json
Try next
  python -c "from vistok import VQModelHF; print(VQModelHF.from_pretrained('{folder}'))"
  vistok train fsq_tiny_imagenet --dataset_name PATH_OR_HUB_ID     on pictures of your own
  vistok evaluate --model {folder} --dataset_name PATH_OR_HUB_ID --split validation"""
