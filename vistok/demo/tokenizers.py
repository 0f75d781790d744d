"""The tokenizers that a page shows: loaded, named, and asked which pictures they take."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ..image_processing import VistokImageProcessor
from ..modeling import VQModelHF

logger = logging.getLogger(__name__)

SIZES = (128, 256, 384, 512)  # pixels of the shorter side; a small tokenizer answers in seconds on a CPU
USUAL_SIZE = 256  # pixels: large enough to look at, small enough to answer in a second
MOST_STRETCHED = 2  # longer side / shorter side of what is computed; longer pictures are made smaller
DEFAULT_FOLDER = "outputs/quickstart"  # where `make quickstart` leaves its tokenizer


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the name that a page gives it.

    Attributes:
        name: The Hub id, or the name of the folder without what lies above it.
        model: In eval mode.
        any_shape: Whether it takes pictures of any height and width, so that none need be cropped.
        sizes: Shorter sides in pixels that can be asked for; one where the network has learned positions.
        usual_size: Which of them to begin with.
        other_assignments: Names of the assignments that its quantizer offers beside the usual one.
    """

    name: str
    model: VQModelHF
    any_shape: bool
    sizes: tuple[int, ...]
    usual_size: int
    other_assignments: tuple[str, ...] = ()

    @property
    def num_codebooks(self) -> int:
        """How many tokens describe a place."""
        return self.model.config.num_codebooks

    def processor(self, width: int, height: int, size: int, square: bool = False) -> VistokImageProcessor:
        """The image processor that shows a picture to this tokenizer.

        The picture keeps its shape and is padded to what the network takes. It is cropped to its centre
        square where the network takes nothing else, or where asked.

        Args:
            width: Of the picture, in pixels.
            height: Of the picture, in pixels.
            size: Shorter side of what is computed, one of `sizes`.
            square: Crop it anyway, to compare with a tokenizer that takes only squares.

        Raises:
            ValueError: This tokenizer has no such size.
        """
        if size not in self.sizes:
            offered = ", ".join(map(str, self.sizes))
            raise ValueError(
                f"{self.name} takes pictures of {offered} pixels, got {size}; choose another size"
            )
        divisor = self.model.downsample_factor
        if square or not self.any_shape:
            crop = {"height": size, "width": size}
            return VistokImageProcessor(size={"shortest_edge": size}, crop_size=crop, size_divisor=divisor)
        scale = min(size / min(width, height), MOST_STRETCHED * size / max(width, height))
        resized = {"height": max(1, round(height * scale)), "width": max(1, round(width * scale))}
        return VistokImageProcessor(size=resized, do_center_crop=False, size_divisor=divisor)

    def pixel_values(self, processor: VistokImageProcessor, image: Image.Image) -> torch.Tensor:
        """A picture's pixel values, float `(1, 3, H, W)`, where the model is."""
        return processor(image, return_tensors="pt")["pixel_values"].to(self.model.device)


def load_tokenizers(names: Sequence[str], device: str | None = None) -> dict[str, Tokenizer]:
    """Loads tokenizers by folder or Hub id.

    Args:
        names: Folders or Hub ids, at least one.
        device: Where they compute; by default the GPU if there is one.

    Returns:
        The tokenizers by the names that a page shows.

    Raises:
        ValueError: A folder or Hub id is none, or is named twice.
        OSError: A folder or Hub id does not hold a tokenizer.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded: dict[str, Tokenizer] = {}
    for source in names:
        name = _shown_name(source)
        if name in loaded:
            raise ValueError(f"Two tokenizers are called {name!r}: rename the folder of one of them")
        loaded[name] = tokenizer(name, VQModelHF.from_pretrained(source))
        loaded[name].model.to(device)  # last: on ZeroGPU nothing computes before a visitor asks
    return loaded


def tokenizer(name: str, model: VQModelHF) -> Tokenizer:
    """A loaded model under a name, with the sizes that it takes."""
    own, factor = model.config.image_size, model.downsample_factor
    # A wide shape that differs from its own in both lengths: a network that takes it takes any.
    any_shape = factor is not None and _takes(model, own + factor, own + 2 * factor)
    sizes = tuple(sorted({own, *(size for size in SIZES if size > own)})) if any_shape else (own,)
    usual = max(own, USUAL_SIZE) if any_shape else own
    latents = torch.randn(1, model.quantizer.latent_dim, *model.encoder.grid(own, own), device=model.device)
    others = tuple(model.quantizer.other_assignments(latents))
    return Tokenizer(name, model.eval(), any_shape, sizes, usual, others)


def default_tokenizer_folder() -> str:
    """The folder of the tokenizer that `make quickstart` makes; trains it where it is missing."""
    if not os.path.exists(os.path.join(DEFAULT_FOLDER, "model.safetensors")):
        from ..training.quickstart import quickstart  # which loads all of training

        logger.warning("No tokenizer is in %s yet: training a small one, some minutes", DEFAULT_FOLDER)
        quickstart(DEFAULT_FOLDER)
    return DEFAULT_FOLDER


def _shown_name(source: str) -> str:
    """Pages are public: of a folder they say its name and not where it is."""
    return Path(source).resolve().name if os.path.isdir(source) else source


def _takes(model: VQModelHF, height: int, width: int) -> bool:
    try:
        model.quantizer.check_grid(model.encoder.grid(height, width))
    except ValueError:
        return False
    return True
