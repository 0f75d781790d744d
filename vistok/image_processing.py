"""VistokImageProcessor: pictures to pixel values (float `(B, 3, H, W)` in [-1, 1]) and back."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import SizeDict, infer_channel_dimension_format

# From its module: transformers 5.17 without torchvision has only a placeholder of that name at the top.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.processing_utils import ImagesKwargs
from transformers.utils import IMAGE_PROCESSOR_NAME

from .configuration import on_registration
from .foreign_folders import foreign_image_size
from .image_decoding import MAX_PIXELS, to_rgb
from .image_decoding import UnreadableImageError as UnreadableImageError
from .image_decoding import decode_image as decode_image
from .modeling import VQModelHF
from .pretrained import COMPANIONS


class VistokImageProcessorKwargs(ImagesKwargs, total=False):
    """What `ImagesKwargs` names, and `size_divisor`: padded heights and widths are multiples of it."""

    size_divisor: int | None


class VistokImageProcessor(PilBackend):
    """Pictures to pixel values, float32 `(B, 3, H, W)` in [-1, 1], and back.

    In order: upright RGB (`to_rgb`), resize the shorter side (bicubic), centre crop, scale to [-1, 1], pad.
    Each step is an option, here or in a call:

    - `size`: `{"shortest_edge": n}`, or `{"height": h, "width": w}`, which changes the aspect; `do_resize`;
    - `crop_size`: `{"height": h, "width": w}`; `do_center_crop=False` keeps the whole picture, of any aspect;
    - `size_divisor`: pad height and width up to a multiple of this, a model's `downsample_factor`; None pads
      nothing, like `do_pad=False`. A picture is never padded to the size of its neighbours in a batch: its
      tokens must not depend on them.

    Pictures are PIL pictures, uint8 arrays or tensors `(H, W, C)` or `(C, H, W)`, batches `(B, ...)` of
    those, or a list. Bytes, paths and addresses are refused: `decode_image` reads files.

    The output also holds `original_sizes`, int64 `(B, 2)`: height and width of each upright picture, for
    `postprocess`.

    Raises:
        ValueError: an unknown, ill-typed or impossible option; no picture; pictures that end up with
            different sizes while `return_tensors` asks for one tensor.

    Example:
        >>> processor = VistokImageProcessor(size={"shortest_edge": 64}, do_center_crop=False, size_divisor=8)
        >>> inputs = processor(Image.new("RGB", (100, 50), "teal"), return_tensors="pt")
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 64, 128])
        >>> processor.postprocess(inputs["pixel_values"], original_sizes=inputs["original_sizes"])[0].size
        (100, 50)
    """

    valid_kwargs = VistokImageProcessorKwargs
    resample = Image.Resampling.BICUBIC
    size = {"shortest_edge": 256}
    default_to_square = False
    crop_size = {"height": 256, "width": 256}
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_pad = True
    size_divisor = None

    def __init__(self, **kwargs: Any):
        self._check_types({name: value for name, value in kwargs.items() if name not in _FILE_KEYS})
        super().__init__(**kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs: Any) -> "VistokImageProcessor":
        """Loads the processor of a folder or a Hub repository; see `ImageProcessingMixin.from_pretrained`.

        A folder of another project that `VQModelHF` loads as it is has none, and gets one of its size.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except OSError:
            length = foreign_image_size(os.fspath(pretrained_model_name_or_path), kwargs)
            if length is None:
                raise
            return cls(size={"shortest_edge": length}, crop_size={"height": length, "width": length})

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> "VistokImageProcessor":
        """Builds the processor from a saved dictionary; `kwargs` override its fields, unknown ones raise."""
        if not kwargs.get("return_unused_kwargs"):
            unknown = set(kwargs) - set(cls.valid_kwargs.__annotations__) - _LOADING_KEYS
            cls._check_types({name: kwargs[name] for name in sorted(unknown)})
        return super().from_dict(image_processor_dict, **kwargs)

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """What calling the processor does: `pixel_values` and `original_sizes`, see the class."""
        self._check_types(kwargs)
        return super().preprocess(images, **kwargs)

    @classmethod
    def _check_types(cls, kwargs: dict[str, Any]) -> None:
        unknown = sorted(set(kwargs) - set(cls.valid_kwargs.__annotations__))
        if unknown:
            options = ", ".join(sorted(cls.valid_kwargs.__annotations__))
            raise ValueError(f"{cls.__name__} has no option {unknown[0]!r}; its options are {options}.")
        try:
            validate_typed_dict(cls.valid_kwargs, kwargs)
        except StrictDataclassError as error:
            raise ValueError(f"{cls.__name__}: {' '.join(str(error).split())}") from error

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        # transformers calls this with every option, at construction and in each call: values are checked here
        kwargs = super()._standardize_kwargs(**kwargs)
        _check_lengths("size", kwargs["size"], [{"shortest_edge"}, {"height", "width"}])
        _check_lengths("crop_size", kwargs["crop_size"], [{"height", "width"}])
        if kwargs["size_divisor"] is not None:
            _check_lengths("size_divisor", {"size_divisor": kwargs["size_divisor"]}, [{"size_divisor"}])
        Image.Resampling(kwargs["resample"])  # a ValueError that names the number
        for name in ("image_mean", "image_std"):
            if np.shape(kwargs[name]) not in ((), (3,)):
                raise ValueError(f"{name} must be one number or 3, got {kwargs[name]}.")
        for name in ("image_std", "rescale_factor"):
            if not np.all(np.asarray(kwargs[name]) > 0):
                raise ValueError(f"{name} must be above 0, got {kwargs[name]}.")
        if kwargs["pad_size"] is not None:
            raise ValueError(
                f"pad_size is not offered, got {dict(kwargs['pad_size'])}: set size_divisor instead."
            )
        if kwargs["data_format"] not in (None, "channels_first"):
            raise ValueError(
                f"Pixel values are always (B, 3, H, W), got data_format {kwargs['data_format']!r}."
            )
        return kwargs

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        # transformers' own would download what looks like an address and read what looks like a path.
        pictures = list(_flatten(images))
        if not pictures:
            raise ValueError("The list of pictures is empty: pass at least one.")
        return pictures

    def process_image(
        self, image: Any, do_convert_rgb: bool | None = None, input_data_format: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Turns one picture (PIL, uint8 array or tensor) into a uint8 array `(3, H, W)`."""
        if not isinstance(image, Image.Image):
            image = _picture_of(image, input_data_format)
        if image.mode != "RGB" and not do_convert_rgb:
            raise ValueError(f"Expected an RGB picture, got mode {image.mode}: set do_convert_rgb=True.")
        return np.asarray(to_rgb(image) if do_convert_rgb else image).transpose(2, 0, 1)

    def _preprocess(
        self,
        images: list[np.ndarray],
        *,
        do_resize: bool,
        size: SizeDict,
        resample: int,
        do_center_crop: bool,
        crop_size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        do_pad: bool,
        size_divisor: int | None,
        return_tensors: Any,
        **kwargs: Any,
    ) -> BatchFeature:
        pixel_values = []
        for image in images:
            height, width = _resized(image.shape[1:], size if do_resize else None)
            if height * width > MAX_PIXELS:
                raise ValueError(
                    f"A picture of {image.shape[1]} x {image.shape[2]} (height x width) would become "
                    f"{height} x {width}, above {MAX_PIXELS:,} pixels: crop it first."
                )
            if (height, width) != image.shape[1:]:
                image = self.resize(image, SizeDict(height=height, width=width), resample)
            if do_center_crop:
                if height < crop_size.height or width < crop_size.width:
                    raise ValueError(
                        f"A picture of {height} x {width} (height x width) is smaller than its crop, "
                        f"{crop_size.height} x {crop_size.width}: set do_resize=True, a smaller crop_size, "
                        "or do_center_crop=False."
                    )
                image = self.center_crop(image, crop_size)
            image = self.rescale(image, rescale_factor) if do_rescale else image.astype(np.float32)
            if do_normalize:
                image = self.normalize(image, image_mean, image_std)
            pixel_values.append(_pad(image.astype(np.float32), size_divisor if do_pad else None))
        shapes = sorted({image.shape[1:] for image in pixel_values})
        if return_tensors is not None and len(shapes) > 1:
            raise ValueError(
                f"The pictures end up with {len(shapes)} different sizes, {shapes[0]} and {shapes[1]} "
                "(height, width) among them, and one tensor needs one size: set do_center_crop=True, pass "
                "them one by one, or set return_tensors=None."
            )
        sizes = [image.shape[1:] for image in images]
        return BatchFeature(
            {"pixel_values": pixel_values, "original_sizes": sizes}, tensor_type=return_tensors
        )

    def postprocess(
        self,
        pixel_values: torch.Tensor | np.ndarray | list[Any],
        output_type: str = "pil",
        original_sizes: torch.Tensor | np.ndarray | list[Any] | None = None,
    ) -> list[Any]:
        """Turns pixel values into pictures: clamped to [-1, 1] and rounded (not truncated) to uint8.

        With `original_sizes` the geometry is undone too, by this processor's own options: build it with the
        options that made the pixel values, rather than pass them in the call. Padding is cut off and the
        picture resized to its original size. What a centre crop took away does not come back: then the
        picture is the crop, at the original's scale (a 400 x 300 original, cropped square, gives 300 x 300).

        Args:
            pixel_values: float `(B, 3, H, W)`, or a list of `(3, H, W)`, on any device.
            output_type: "pil" for PIL pictures, "np" for uint8 arrays `(H, W, 3)`, "pt" for uint8 tensors
                `(3, H, W)`.
            original_sizes: `(B, 2)` heights and widths, as the processor gave them.

        Returns:
            A list of B pictures, ready to be saved or processed again.

        Raises:
            ValueError: another shape, a NaN or infinity, sizes that do not belong to these pixel values.

        Example:
            >>> VistokImageProcessor().postprocess(torch.ones(2, 3, 4, 4), output_type="np")[0].max()
            np.uint8(255)
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'Expected output_type "pil", "np" or "pt", got {output_type!r}.')
        pictures = [torch.as_tensor(picture).detach().to("cpu", torch.float32) for picture in pixel_values]
        if original_sizes is not None and len(original_sizes) != len(pictures):
            raise ValueError(f"Got {len(pictures)} pictures and {len(original_sizes)} original_sizes.")
        outputs = []
        for index, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[0] != 3:
                raise ValueError(
                    f"Expected pixel values (B, 3, H, W), got a picture of shape {tuple(picture.shape)}."
                )
            if not torch.isfinite(picture).all():
                raise ValueError(
                    f"The pixel values of picture {index} hold NaN or infinity: check the model."
                )
            if original_sizes is None:
                outputs.append(self._to_pil(picture))
                continue
            original = tuple(int(length) for length in original_sizes[index])
            (height, width), restored = self._geometry(original, tuple(picture.shape[1:]))
            outputs.append(self._to_pil(picture[:, :height, :width]).resize(restored[::-1], self.resample))
        if output_type == "pil":
            return outputs
        arrays = [np.array(output) for output in outputs]
        return (
            arrays if output_type == "np" else [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
        )

    def _to_pil(self, picture: torch.Tensor) -> Image.Image:
        values = picture.permute(1, 2, 0)
        if self.do_normalize:
            values = values * torch.tensor(self.image_std) + torch.tensor(self.image_mean)
        if self.do_rescale:
            values = values / self.rescale_factor
        return Image.fromarray(values.clamp(0, 255).round().to(torch.uint8).numpy())

    def _geometry(
        self, original: tuple[int, int], shape: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """What of the pixel values is picture, and the size to give it; all of them (height, width)."""
        resized = _resized(original, self.size if self.do_resize else None)
        content, restored = resized, original
        if self.do_center_crop:
            content = (self.crop_size.height, self.crop_size.width)
            restored = tuple(
                max(1, round(kept * before / after))
                for kept, before, after in zip(content, original, resized, strict=True)
            )
        padded = _padded(content, self.size_divisor if self.do_pad else None)
        if padded != shape:
            raise ValueError(
                f"An original of {original} (height, width) gives pixel values of {padded} here, got {shape}"
                ": build the processor with the options that were used, or leave original_sizes out."
            )
        return content, restored


# What transformers writes into a processor's file beside its options, and what its loaders pass through.
_FILE_KEYS = {"image_processor_type", "processor_class", "feature_extractor_type", "auto_map"}
_LOADING_KEYS = {"return_unused_kwargs", "trust_remote_code", "code_revision", "_commit_hash", "dtype"}


def _check_lengths(name: str, lengths: Any, allowed: list[set[str]]) -> None:
    lengths = dict(lengths)
    if set(lengths) not in allowed:
        raise ValueError(
            f"{name} must have the keys {' or '.join(map(str, map(sorted, allowed)))}, got {lengths}."
        )
    if any(
        not isinstance(length, int) or isinstance(length, bool) or length < 1 for length in lengths.values()
    ):
        raise ValueError(f"{name} must hold whole numbers of at least 1, got {lengths}.")


def _flatten(images: Any) -> Iterable[Any]:
    if isinstance(images, list | tuple):
        for item in images:
            yield from _flatten(item)
    elif isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        yield from images
    elif isinstance(images, Image.Image | np.ndarray | torch.Tensor):
        yield images
    else:
        raise ValueError(
            f"Expected a PIL picture, a uint8 array or tensor, or a list, got {type(images).__name__}: "
            "read files with decode_image(path.read_bytes())."
        )


def _picture_of(array: np.ndarray | torch.Tensor, input_data_format: Any) -> Image.Image:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0:
        # Floats are refused: transformers divides those in [0, 1] by 255 once more: black pictures.
        raise ValueError(
            f"Expected uint8 pictures (H, W, C) or (C, H, W), got {array.dtype} {array.shape}: pass values "
            "0...255 as uint8."
        )
    if array.ndim == 3:
        layout = input_data_format or infer_channel_dimension_format(array, num_channels=(1, 3, 4))
        array = array.transpose(1, 2, 0) if layout == "channels_first" else array
        array = array[:, :, 0] if array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(array))


def _resized(shape: tuple[int, int], size: SizeDict | None) -> tuple[int, int]:
    if size is None:
        return shape
    if size.shortest_edge is None:
        return size.height, size.width
    shorter = min(shape)
    # Truncated, as torchvision and transformers do: published results depend on it.
    height, width = (int(size.shortest_edge * length / shorter) for length in shape)
    return height, width


def _padded(shape: tuple[int, int], divisor: int | None) -> tuple[int, int]:
    return shape if divisor is None else tuple(-(-length // divisor) * divisor for length in shape)


def _pad(image: np.ndarray, divisor: int | None) -> np.ndarray:
    height, width = _padded(image.shape[1:], divisor)
    # At the bottom and the right, so that pixels and tokens keep their places. The last row and column are
    # repeated: a bar of one colour is an edge that the tokenizer never saw in training and spends tokens on.
    return np.pad(image, ((0, 0), (0, height - image.shape[1]), (0, width - image.shape[2])), mode="edge")


on_registration(
    lambda config_class: AutoImageProcessor.register(
        config_class, image_processor_classes={"pil": VistokImageProcessor}, exist_ok=True
    )
)


def _beside_model(model: VQModelHF, folder: Path, name: str) -> None:
    length = model.config.image_size
    processor = VistokImageProcessor(
        size={"shortest_edge": length},
        crop_size={"height": length, "width": length},
        size_divisor=getattr(model.encoder, "downsample_factor", None),  # 1-D tokenizers have none
    )
    path = folder / IMAGE_PROCESSOR_NAME
    if not path.exists() or _is_default_of_another_model(path, processor):
        processor.save_pretrained(folder)


def _is_default_of_another_model(path: Path, processor: VistokImageProcessor) -> bool:
    """Whether a processor's file is what an earlier save of another model wrote, and nobody changed."""
    theirs, ours = json.loads(path.read_text(encoding="utf-8")), json.loads(processor.to_json_string())
    geometry = ("size", "crop_size", "size_divisor")
    length = theirs.get("size", {}).get("shortest_edge")
    default = theirs.get("crop_size") == {"height": length, "width": length}
    return default and all(
        theirs.get(key) == ours.get(key) for key in (theirs.keys() | ours.keys()) - set(geometry)
    )


COMPANIONS.append(_beside_model)
