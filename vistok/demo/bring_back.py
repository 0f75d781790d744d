"""The fifth part of the page: tokens that were taken away become a picture again."""

from typing import Any

import gradio as gr
from PIL import Image

from . import html
from .context import Context
from .reconstruction import decode
from .see import Panels, panel
from .token_files import TokenFile, check_amount


class BringBack:
    """An upload of tokens and the picture that they give.

    Args:
        context: What the page shows.
    """

    def __init__(self, context: Context):
        self.context = context

    def draw(self) -> None:
        """Draws the upload and its picture."""
        gr.HTML(
            html.note("And back: upload tokens, of this page or your own, and see their picture."),
            padding=False,
        )
        with gr.Row():
            with gr.Column(min_width=280):
                self.file = gr.File(
                    label="Tokens, .json or .npy",
                    file_types=[".json", ".npy"],
                    height=180,
                    elem_id="tokens-file",
                )
                self.button = gr.Button("Decode", variant="primary", elem_id="decode")
            with gr.Column(min_width=280):
                self.picture = panel("Picture of the tokens", elem_id="decoded")
                self.says = gr.HTML(elem_id="decoded-says", padding=False)

    def events(self, see: Panels) -> None:
        """Connects everything, once all is drawn."""
        event = {"inputs": [self.file, see.name], "outputs": [self.picture, self.says]}
        self.file.upload(**self.context.on(self._decode, **event))
        self.button.click(**self.context.on(self._decode, **event))

    def _decode(self, file: TokenFile | None, name: str) -> list[Any]:
        if file is None:
            raise ValueError("Upload a file of tokens first.")
        known = file.tokenizer in self.context.tokenizers
        picture, used = decode_file(self.context, file, file.tokenizer if known else name)
        shape = " × ".join(map(str, file.tokens.shape))
        text = f"{shape} tokens of {used} give {picture.width} × {picture.height} pixels."
        return [picture, html.note(text)]


def decode_file(context: Context, file: TokenFile, name: str | None) -> tuple[Image.Image, str]:
    """The picture of tokens and the name of the tokenizer that made it.

    Args:
        context: What the page shows.
        file: The tokens.
        name: Of the tokenizer; by default the one that the file names, else the first.

    Raises:
        ValueError: There is no such tokenizer, or the tokens are not its, or too many.
    """
    if not name and file.tokenizer and file.tokenizer not in context.tokenizers:
        known = ", ".join(context.tokenizers)
        raise ValueError(
            f"These tokens are of the tokenizer {file.tokenizer[:80]!r}, which is not here: choose one to "
            f"decode them with, of {known}"
        )
    tokenizer = context.tokenizer(name or file.tokenizer)
    check_amount(tokenizer, file.tokens)
    return decode(tokenizer, file.tokens, file.height, file.width), tokenizer.name
