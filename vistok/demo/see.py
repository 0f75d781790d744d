"""The first part of the page: a picture in; its reconstruction, difference, tokens and numbers out."""

import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from ..visualization import draw_difference, draw_tokens
from . import html, token_files
from .context import NO_PICTURE, Context
from .examples import example, example_files, thumbnails
from .reconstruction import Reconstruction, reconstruct
from .snippets import python_lines
from .token_map import TokenMap

AMPLIFY = (1, 4, 8, 16)
MAP_SIDE = 512  # pixels, about, of the longer side of a drawn token grid
PANEL = 300  # pixels high


@dataclass(frozen=True)
class Panels:
    """The components that other parts of the page read.

    Attributes:
        picture: The visitor's picture.
        name: The name of the chosen tokenizer.
        size: The shorter side that is computed.
        shown: The state that holds the `Reconstruction`.
        amplify: By how much differences are amplified.
        maps: The drawn token grid.
        runs: The events after which there is another `Reconstruction`.
    """

    picture: gr.Image
    name: gr.Dropdown
    size: gr.Radio
    shown: gr.State
    amplify: gr.Radio
    maps: gr.Image
    runs: list[Any]


def panel(label: str, classes: str = "", **options: Any) -> gr.Image:
    """A picture that the page shows; `options` are those of `gr.Image`.

    In fullscreen a click reaches nothing: what can be clicked has none.
    """
    buttons = [] if "clickable" in classes.split() else ["fullscreen"]
    return gr.Image(
        label=label, type="pil", format="png", interactive=False, height=PANEL, min_width=150,
        buttons=buttons, alt_text=label, elem_classes=["panel", *classes.split()], **options,
    )  # fmt: skip


def token_scale(token_map: TokenMap) -> int:
    """Pixels per token of a drawn grid."""
    return max(1, MAP_SIDE // max(token_map.rows, token_map.columns))


def draw_map(
    context: Context, shown: Reconstruction, codebook: int = 0, tokens: np.ndarray | None = None
) -> Image.Image | None:
    """The token grid of one codebook, of a reconstruction's tokens or of others; None without tokens."""
    tokens = shown.tokens if tokens is None else tokens
    if tokens is None:
        return None
    tokenizer = context.of(shown)
    token_map = TokenMap.of(tokenizer, tokens)
    return draw_tokens(token_map.tokens[codebook], tokenizer.model.codebook_size, token_scale(token_map))


def save_tokens(shown: Reconstruction) -> list[str]:
    """The tokens as a JSON and a NumPy file in the cache, which deletes them."""
    folder = Path(get_upload_folder()) / secrets.token_hex(16)
    folder.mkdir()
    contents = {"tokens.json": token_files.as_json(shown), "tokens.npy": token_files.as_npy(shown.tokens)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in contents]


class See:
    """The inputs at the left and the panels of the first tab.

    Args:
        context: What the page shows.
    """

    def __init__(self, context: Context):
        self.context = context
        self._example = lru_cache(maxsize=16)(self._reconstruct_example)

    def inputs(self) -> None:
        """Draws the column of inputs."""
        first, names = self.context.first, list(self.context.tokenizers)
        self.picture = gr.Image(
            label="Picture", type="filepath", sources=["upload", "clipboard"], height=PANEL,
            elem_id="picture", placeholder="Drop a picture here, or click to choose one",
        )  # fmt: skip
        gr.HTML(html.note("Or pick an example:"), padding=False)
        self.gallery = gr.Gallery(
            thumbnails(), label="Examples", show_label=False, columns=4, height="auto",
            object_fit="cover", allow_preview=False, buttons=[], interactive=False, elem_id="examples",
        )  # fmt: skip
        self.name = gr.Dropdown(names, value=first.name, label="Tokenizer", visible=len(names) > 1)
        self.size = gr.Radio(**self._sizes(first.name), label="Shorter side")
        self.button = gr.Button("Tokenize", variant="primary", elem_id="tokenize")

    def panels(self) -> None:
        """Draws the first tab."""
        self.shown = gr.State(time_to_live=3600)
        self.tiles = gr.HTML(elem_id="numbers", padding=False)
        with gr.Row(elem_classes="panels"):
            self.original = panel("Original", elem_id="original")
            self.result = panel("Reconstruction", elem_id="reconstruction")
        with gr.Row(elem_classes="panels"):
            with gr.Column(min_width=150):
                self.difference = panel("Difference", elem_id="difference")
                self.legend = gr.HTML(html.difference_legend(AMPLIFY[1]), padding=False)
                self.amplify = gr.Radio(
                    [(f"{factor}×", factor) for factor in AMPLIFY], value=AMPLIFY[1], label="Amplify it"
                )
            with gr.Column(min_width=150):
                self.maps = panel("Tokens", elem_id="tokens", classes="pixels clickable")
                self.note = gr.HTML(padding=False)
        self.wipe = gr.ImageSlider(
            label="Original | reconstruction",
            type="pil", format="png", interactive=False, max_height=460, elem_id="wipe",
        )  # fmt: skip
        self.chart = gr.HTML(
            elem_id="use", label="Codebook use in this picture", show_label=True, container=True, padding=True
        )

    def take_away(self) -> None:
        """Draws the part of another tab that hands out tokens and the Python lines."""
        with gr.Row():
            self.downloads = [
                gr.DownloadButton(f"Tokens as {kind}", interactive=False, elem_id=f"download-{kind[1:]}")
                for kind in (".json", ".npy")
            ]
        self.lines = gr.Code(
            elem_id="lines",
            label="What this page just did, in Python",
            language="python",
            interactive=False,
            wrap_lines=True,
        )

    def events(self, page: gr.Blocks) -> Panels:
        """Connects everything, once all is drawn."""
        inputs = [self.picture, self.name, self.size, self.amplify]
        outputs = [
            self.shown, self.original, self.result, self.difference, self.maps, self.wipe, self.tiles,
            self.note, self.chart, self.lines, *self.downloads,
        ]  # fmt: skip
        settings, on = [self.name, self.size, self.amplify], self.context.on
        # There alone: what is refused would else be an error on every panel.
        example = {"outputs": [self.picture, *outputs], "show_progress_on": self.picture}
        own = {"inputs": inputs, "outputs": outputs, "show_progress_on": self.picture}
        runs = [
            page.load(**on(self._first, inputs=settings, **example)),
            self.gallery.select(**on(self._pick, inputs=settings, selects=True, **example)),
            self.button.click(**on(self._run, **own)),
            self.picture.input(**on(self._run_if_any, **own)),
            self.size.input(**on(self._run_if_any, **own)),
        ]
        renamed = self.name.input(
            self._sizes_update, [self.name, self.size], self.size,
            preprocess=False, api_visibility="private", trigger_mode="always_last",
        )  # fmt: skip
        runs.append(renamed.then(**on(self._run_if_any, **own)))
        self.amplify.input(
            **on(self._redraw, inputs=[self.shown, self.amplify], outputs=[self.difference, self.legend])
        )
        return Panels(self.picture, self.name, self.size, self.shown, self.amplify, self.maps, runs)

    def _sizes(self, name: str, size: int | None = None) -> dict[str, Any]:
        """The sizes of a tokenizer; the chosen one stays where it is one of them."""
        tokenizer = self.context.tokenizer(name)
        choices = [(f"{one} px", one) for one in tokenizer.sizes]
        return {"choices": choices, "value": size if size in tokenizer.sizes else tokenizer.usual_size}

    def _sizes_update(self, name: str, size: int | None) -> Any:
        return gr.Radio(**self._sizes(name, size))

    def _reconstruct_example(self, picture: str, name: str, size: int) -> Reconstruction:
        return reconstruct(self.context.tokenizer(name), example(picture), size)

    def _first(self, name: str, size: int, amplify: int) -> list[Any]:
        return self._show_example(0, name, size, amplify)

    def _pick(self, place: int, name: str, size: int, amplify: int) -> list[Any]:
        return self._show_example(place, name, size, amplify)

    def _show_example(self, place: int, name: str, size: int, amplify: int) -> list[Any]:
        picture, path = list(example_files().items())[place]
        return [path, *self._show(self._example(picture, name, size), amplify)]

    def _run(self, picture: Image.Image | None, name: str, size: int, amplify: int) -> list[Any]:
        if picture is None:
            raise ValueError(NO_PICTURE)
        return self._show(reconstruct(self.context.tokenizer(name), picture, size), amplify)

    def _run_if_any(self, picture: Image.Image | None, *settings: Any) -> list[Any]:
        return [gr.skip()] * 12 if picture is None else self._run(picture, *settings)

    def _redraw(self, shown: Reconstruction | None, amplify: int) -> tuple[Any, str]:
        self.context.of(shown)
        return draw_difference(shown.original, shown.picture, amplify), html.difference_legend(amplify)

    def _show(self, shown: Reconstruction, amplify: int) -> list[Any]:
        if amplify not in AMPLIFY:
            raise ValueError(f"The difference is amplified {AMPLIFY} times, got {amplify!r}")
        tokenizer = self.context.of(shown)
        has_tokens = shown.tokens is not None
        files = save_tokens(shown) if has_tokens else [None, None]
        return [
            shown,
            shown.original,
            shown.picture,
            draw_difference(shown.original, shown.picture, amplify),
            draw_map(self.context, shown),
            (shown.original, shown.picture),
            html.numbers(tokenizer, shown),
            html.what_was_computed(tokenizer, shown),
            html.histogram(tokenizer, shown.tokens) if has_tokens else "This tokenizer makes no tokens.",
            python_lines(tokenizer, shown),
            *(gr.DownloadButton(value=file, interactive=has_tokens) for file in files),
        ]
