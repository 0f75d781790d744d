"""The third part of the page: fewer codebooks, or another assignment, of the same tokenizer."""

from typing import Any

import gradio as gr

from ..visualization import draw_difference
from . import html
from .assignments import other_assignments
from .context import Context
from .reconstruction import Reconstruction, decode, quality
from .see import Panels, draw_map, panel


class Variants:
    """Panels that appear with a tokenizer of several codebooks, or with one that offers another assignment.

    Args:
        context: What the page shows.
    """

    def __init__(self, context: Context):
        self.context = context
        tokenizers = context.tokenizers.values()
        self.several = max(tokenizer.num_codebooks for tokenizer in tokenizers)
        self.offered = any(tokenizer.other_assignments for tokenizer in tokenizers)

    def draw(self) -> None:
        """Draws the panels."""
        with gr.Accordion("Keep the first codebooks only", visible=self.several > 1) as self.keeping:
            self.keep = gr.Slider(1, max(2, self.several), value=1, step=1, label="Codebooks", elem_id="keep")
            with gr.Row(elem_classes="panels"):
                self.kept = panel("From the first codebooks", elem_id="kept-picture")
                self.kept_difference = panel("Difference, 4×")
            self.kept_says = gr.HTML(elem_id="kept", padding=False)
        with gr.Accordion("Another assignment", visible=self.offered) as self.assigning:
            gr.HTML(
                html.note("The latents are the same; which entry each of them takes is not."), padding=False
            )
            with gr.Row(elem_classes="panels"):
                self.usual = panel("Its usual tokens", classes="pixels")
                self.assigned = panel("Its other tokens", classes="pixels")
            with gr.Row(elem_classes="panels"):
                self.picture = panel("Their picture")
                self.difference = panel("To the usual one, 4×")
            self.assigned_says = gr.HTML(elem_id="assignment", padding=False)

    def events(self, see: Panels) -> None:
        """Connects everything, once all is drawn."""
        on, kept = self.context.on, [self.kept, self.kept_difference, self.kept_says]
        if self.several > 1:
            for run in see.runs:
                run.success(**on(self._open_keep, inputs=see.shown, outputs=[self.keeping, self.keep, *kept]))
            self.keep.release(**on(self._keep, inputs=[see.shown, self.keep], outputs=kept))
        if self.offered:
            outputs = [
                self.assigning, self.usual, self.assigned, self.picture, self.difference, self.assigned_says,
            ]  # fmt: skip
            for run in see.runs:
                run.success(**on(self._assign, inputs=see.shown, outputs=outputs))

    def _open_keep(self, shown: Reconstruction | None) -> list[Any]:
        count = self.context.of(shown).num_codebooks
        if count == 1:
            return [gr.Accordion(visible=False), *[gr.skip()] * 4]
        half = max(1, count // 2)
        slider = gr.Slider(maximum=count, value=half)
        return [gr.Accordion(visible=True), slider, *self._keep(shown, half)]

    def _keep(self, shown: Reconstruction | None, count: int) -> list[Any]:
        tokenizer = self.context.of(shown)
        width, height = shown.picture.size
        picture = decode(tokenizer, shown.tokens, height, width, num_codebooks=int(count))
        measured = quality(shown.original, picture)
        text = html.kept(int(count), tokenizer.num_codebooks, measured["psnr"], shown.numbers["psnr"])
        return [picture, draw_difference(shown.original, picture), text]

    def _assign(self, shown: Reconstruction | None) -> list[Any]:
        tokenizer = self.context.of(shown)
        found = other_assignments(tokenizer, shown)
        if not found:
            return [gr.Accordion(visible=False), *[gr.skip()] * 5]
        ((name, tokens),) = list(found.items())[:1]
        width, height = shown.picture.size
        picture = decode(tokenizer, tokens, height, width)
        measured = quality(shown.original, picture)["psnr"]
        return [
            gr.Accordion(label=f"Another assignment: {name}", visible=True),
            draw_map(self.context, shown),
            draw_map(self.context, shown, tokens=tokens),
            picture,
            draw_difference(shown.picture, picture),
            html.assignment(name, shown.tokens, tokens, measured, shown.numbers["psnr"]),
        ]
