"""FSQ-pytorch (github.com/duchenzhuang/FSQ-pytorch): strided convolutions and FSQ, ImageNet's statistics."""

from collections.abc import Sequence

from ..networks import StridedCNNConfig
from ..quantizers import FSQConfig
from .base import Converted, Family, Published, Source, need, numbered, rename

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# Nothing of FSQ is in the file but how many channels it has. The project publishes two sets of five levels.
_LEVELS = {4: [8, 5, 5, 5], 6: [8, 8, 8, 5, 5, 5]}


def _convert(
    source: Source, *, image_size: int | None = None, levels: Sequence[int] | None = None
) -> Converted:
    weights = source.weights("model_state_dict", "")
    # The last is the convolution to the latents, and activations between have numbers too.
    downsamples = max(0, numbered(weights, r"enc\.blocks\.(\d+)\.", step=2) - 1)
    channels = need(weights, f"enc.blocks.{2 * downsamples}.weight", 4)[0]
    if levels is None and channels not in _LEVELS:
        raise ValueError(
            f"The file says {channels} channels but not their levels: say --levels, one number a channel; "
            "the published ones of five are 7 5 5 5 5 and 8 8 8 6 5"
        )
    levels = list(levels or _LEVELS[channels])
    if len(levels) != channels:
        raise ValueError(
            f"The file has {channels} channels, --levels {' '.join(map(str, levels))} are not as many"
        )
    config = FSQConfig(
        levels=levels,
        bound="tan",
        image_size=image_size or 128,
        network=StridedCNNConfig(
            hidden_channels=need(weights, "enc.blocks.0.weight", 4)[0], num_downsamples=downsamples
        ),
        **_IMAGENET,
    )
    rules = {}
    for place in range(downsamples):
        rules[rf"enc\.blocks\.{2 * place}\.(weight|bias)"] = rf"encoder.downs.{place}.conv.\1"
        rules[rf"dec\.blocks\.{2 * place}\.(weight|bias)"] = rf"decoder.ups.{place}.conv.\1"
    rules[rf"enc\.blocks\.{2 * downsamples}\.(weight|bias)"] = r"to_latents.\1"
    rules[rf"dec\.blocks\.{2 * downsamples}\.(weight|bias)"] = r"decoder.to_pixels.\1"
    renamed = rename(weights, rules)
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


FAMILY = Family(
    name="fsq_pytorch",
    project="duchenzhuang/FSQ-pytorch",
    convert=_convert,
    needs_settings=False,
    options=("levels",),
    published=tuple(
        Published(
            "95.pt",
            f"f8, FSQ {levels}, ImageNet at 128 px; a download of the project",
            options=f"--levels {' '.join(map(str, levels))}",
        )
        for levels in ([8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 6, 5], [8, 8, 8, 5, 5, 5])
    ),
)
