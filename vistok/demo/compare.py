"""The fourth part of the page: two or three tokenizers on one picture, at one size."""

from typing import Any

import gradio as gr
from PIL import Image

from ..visualization import draw_difference
from . import html
from .context import NO_PICTURE, Context
from .reconstruction import reconstruct
from .see import Panels, panel
from .tokenizers import Tokenizer

MOST = 3  # tokenizers side by side
SQUARE = "Where one of them takes only squares, all see the centre square."
ALONE = "There is only one tokenizer here, and it takes two to compare. Start the page with several:"


class Compare:
    """A tab with a column for each of the chosen tokenizers.

    Args:
        context: What the page shows.
    """

    def __init__(self, context: Context):
        self.context = context

    def draw(self) -> None:
        """Draws the tab."""
        names = list(self.context.tokenizers)
        if len(names) < 2:
            gr.HTML(html.note(f"{ALONE} vistok demo --model FOLDER_OR_HUB_ID --model ANOTHER"), padding=False)
            return
        gr.HTML(html.note(f"All see one picture at one size. {SQUARE}"), padding=False)
        self.names = gr.CheckboxGroup(
            names, value=names[:MOST], label=f"Two or three tokenizers, of {len(names)}"
        )
        self.button = gr.Button("Compare", variant="primary", elem_id="compare")
        self.table = gr.HTML(elem_id="table")
        self.original = panel("Original", visible=False)
        with gr.Row(elem_classes="panels stacks"):
            self.pictures = [panel("Reconstruction", visible=False) for _ in range(MOST)]
        with gr.Row(elem_classes="panels stacks"):
            self.differences = [panel("Difference", visible=False) for _ in range(MOST)]

    def events(self, see: Panels) -> None:
        """Connects everything, once all is drawn."""
        if len(self.context.tokenizers) < 2:
            return
        outputs = [self.table, self.original, *self.pictures, *self.differences]
        inputs = [see.picture, self.names, see.size, see.amplify]
        self.button.click(**self.context.on(self._compare, inputs=inputs, outputs=outputs))
        for run in see.runs:
            run.success(
                self._clear, outputs=outputs, show_progress="hidden", api_visibility="private",
                trigger_mode="always_last",
            )  # fmt: skip

    def _clear(self) -> list[Any]:
        """Another picture: what was compared was not this one."""
        return ["", *[gr.Image(None, visible=False)] * (1 + 2 * MOST)]

    def _compare(self, picture: Image.Image | None, names: list[str], size: int, amplify: int) -> list[Any]:
        if picture is None:
            raise ValueError(NO_PICTURE)
        if not 2 <= len(names) <= MOST:
            raise ValueError(f"Choose two or three tokenizers, not {len(names)}.")
        chosen = [self.context.tokenizer(name) for name in names]
        size, square = common_size(chosen, size)
        results = [reconstruct(tokenizer, picture, size, square) for tokenizer in chosen]
        missing = [gr.Image(None, visible=False)] * (MOST - len(results))
        differences = [draw_difference(result.original, result.picture, amplify) for result in results]
        return [
            html.compared(chosen, results),
            gr.Image(results[0].original, visible=True),
            *(gr.Image(one.picture, label=one.tokenizer, visible=True) for one in results),
            *missing,
            *(gr.Image(one, label=f"Difference, {amplify}×", visible=True) for one in differences),
            *missing,
        ]


def common_size(tokenizers: list[Tokenizer], size: int) -> tuple[int, bool]:
    """The size at which all of them see one picture, and whether it is cropped to a square.

    Args:
        tokenizers: What is compared.
        size: The wanted shorter side in pixels.

    Raises:
        ValueError: They have no size in common.
    """
    common = sorted(set.intersection(*(set(tokenizer.sizes) for tokenizer in tokenizers)))
    if not common:
        sizes = "; ".join(f"{one.name} takes {', '.join(map(str, one.sizes))}" for one in tokenizers)
        raise ValueError(f"These tokenizers have no size in common: {sizes}")
    nearest = min(common, key=lambda one: abs(one - size))
    return nearest, not all(tokenizer.any_shape for tokenizer in tokenizers)
