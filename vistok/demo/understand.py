"""The second part of the page: one token, what it stands for, and the picture without it."""

import random
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from ..visualization import draw_close_up, draw_difference, mark_places
from . import html
from .context import Context
from .entries import entry, neighbours
from .reconstruction import Reconstruction, decode
from .see import Panels, draw_map, panel, token_scale
from .token_map import TokenMap

NEIGHBOUR, OTHER, RANDOM = "its neighbour", "the token written below", "noise, a random token"
HERE, EVERYWHERE = "here", "wherever it occurs"
AMPLIFY = 8


class Understand:
    """A tab in which a token is chosen, looked at and replaced.

    Args:
        context: What the page shows.
    """

    def __init__(self, context: Context):
        self.context = context

    def draw(self) -> None:
        """Draws the tab."""
        several = max(tokenizer.num_codebooks for tokenizer in self.context.tokenizers.values())
        number = {"precision": 0, "min_width": 80}
        gr.HTML(
            html.note("Click a token in either picture, or write its place. Bright: the same token."),
            padding=False,
        )
        with gr.Row(elem_classes="panels"):
            self.maps = panel("Tokens", elem_id="token-map", classes="pixels clickable")
            self.picture = panel("Picture", elem_id="token-picture", classes="clickable")
        with gr.Row():
            with gr.Column(min_width=280):
                with gr.Row():
                    self.row = gr.Number(1, label="Row", elem_id="row", **number)
                    self.column = gr.Number(1, label="Column", elem_id="column", **number)
                    self.codebook = gr.Number(
                        1, label="Codebook", visible=several > 1, elem_id="codebook", **number
                    )
                self.card = gr.HTML(elem_id="card")
            with gr.Column(min_width=280):
                self.mode = gr.Radio([NEIGHBOUR, OTHER, RANDOM], value=NEIGHBOUR, label="Replace it by")
                self.neighbour = gr.Dropdown(
                    label="Neighbours in the codebook, the nearest first", elem_id="neighbour"
                )
                self.other = gr.Number(0, label="Token to write", elem_id="other", **number)
                self.where = gr.Radio([HERE, EVERYWHERE], value=HERE, label="Where")
                self.button = gr.Button("Replace", variant="primary", elem_id="replace")
        with gr.Row(elem_classes="panels"):
            self.changed = panel("Replaced", elem_id="replaced")
            self.effect = panel(f"What changed, {AMPLIFY}×")
        self.says = gr.HTML(elem_id="effect", padding=False)
        self.close_up = panel("Close to it, before and after", elem_id="close-up", classes="pixels")

    def events(self, see: Panels, tabs: gr.Tabs) -> None:
        """Connects everything, once all is drawn."""
        on, shown = self.context.on, see.shown
        place, how = (
            [self.codebook, self.row, self.column],
            [self.mode, self.neighbour, self.other, self.where],
        )
        replaced = [self.changed, self.effect, self.says, self.close_up]
        looked = [*place, self.maps, self.picture, self.card, self.neighbour, *replaced]
        for run in see.runs:
            run.success(**on(self._open, inputs=[shown, self.mode, self.other, self.where], outputs=looked))
        inputs = [shown, *place, self.mode, self.other, self.where]
        see.maps.select(**on(self._click_first_map, inputs, [*looked, tabs], selects=True))
        self.maps.select(**on(self._click_map, inputs, [*looked, tabs], selects=True))
        self.picture.select(**on(self._click_picture, inputs, looked, selects=True))
        look = [*inputs, self.neighbour]
        for number, field in enumerate(place):
            field.submit(**on(self._look, inputs=look, outputs=looked))
            # The other fields are left alone: a visitor may be writing into the next one.
            left = on(partial(self._leave, number), inputs=look, outputs=[field, *looked[len(place) :]])
            field.blur(**left)
        replace = on(self._replace, inputs=[shown, *place, *how], outputs=replaced)
        self.button.click(**replace)
        self.other.submit(**replace)
        for field in (self.mode, self.neighbour, self.where):
            field.input(**replace)

    def _open(self, shown: Reconstruction | None, mode: str, other: int | None, where: str) -> list[Any]:
        """Another picture: the place in the middle, or a sentence where there are no tokens."""
        if shown is None:
            return [gr.skip()] * 11
        if shown.tokens is None:
            sentence = html.note(
                f"{shown.tokenizer} makes no tokens: there are none to look at or to replace."
            )
            return [*[gr.skip()] * 3, None, None, sentence, gr.Dropdown([], value=None), None, None, "", None]
        token_map, entries = self._map(shown), self.context.of(shown).model.codebook_size
        other = min(other or 0, entries - 1)  # it may have been written for a larger codebook
        return self._look(shown, 1, token_map.rows // 2 + 1, token_map.columns // 2 + 1, mode, other, where)

    def _click_first_map(
        self, pixel: list[int], shown: Reconstruction | None, codebook: int, *others: Any
    ) -> list[Any]:
        """A click where the tokens of the first codebook are drawn."""
        return self._click_map(pixel, shown, 1, *others)

    def _click_map(
        self,
        pixel: list[int],
        shown: Reconstruction | None,
        codebook: int,
        row: int,
        column: int,
        *how: Any,
    ) -> list[Any]:
        scale = token_scale(self._map(shown))
        x, y = pixel
        return [
            *self._look(shown, codebook, y // scale + 1, x // scale + 1, *how),
            gr.Tabs(selected="understand"),
        ]

    def _click_picture(
        self,
        pixel: list[int],
        shown: Reconstruction | None,
        codebook: int,
        row: int,
        column: int,
        *how: Any,
    ) -> list[Any]:
        factor = self._map(shown).factor
        if factor is None:
            raise ValueError("These tokens have no place in the picture: click one in the other panel.")
        x, y = pixel
        return self._look(shown, codebook, y // factor + 1, x // factor + 1, *how)

    def _look(
        self,
        shown: Reconstruction | None,
        codebook: int,
        row: int,
        column: int,
        mode: str,
        other: int,
        where: str,
        neighbour: int | None = None,
    ) -> list[Any]:
        """All about the token at a place, and the picture with another in its stead: a neighbour.

        That is the chosen one where it is one of this token's, else the nearest.
        """
        token_map, tokenizer = self._map(shown), self.context.of(shown)
        codebook, place = self._place(token_map, codebook, row, column)
        row, column = token_map.row_and_column(place)
        token, same = token_map.token(codebook, place), token_map.same(codebook, place)
        scale = token_scale(token_map)
        drawn = draw_map(self.context, shown, codebook)
        picture = shown.picture
        if token_map.factor is not None:
            picture = mark_places(picture, same, (row, column), token_map.factor)
        beside = neighbours(tokenizer, codebook, token)
        neighbour = _one_of(beside, neighbour)
        replaced = self._replace(shown, codebook + 1, row + 1, column + 1, mode, neighbour, other, where)
        return [
            codebook + 1,
            row + 1,
            column + 1,
            mark_places(drawn, same, (row, column), scale),
            picture,
            html.token_card(token_map, codebook, place, entry(tokenizer, codebook, token)),
            gr.Dropdown([(f"{one:,}", one) for one in beside], value=neighbour),
            *replaced,
        ]

    def _leave(self, number: int, *values: Any) -> list[Any]:
        """What `_look` gives, but of the three fields only the one that was left."""
        looked = self._look(*values)
        return [looked[number], *looked[3:]]

    def _replace(
        self,
        shown: Reconstruction | None,
        codebook: int,
        row: int,
        column: int,
        mode: str,
        neighbour: int | None,
        other: int,
        where: str,
    ) -> list[Any]:
        token_map, tokenizer = self._map(shown), self.context.of(shown)
        codebook, place = self._place(token_map, codebook, row, column)
        if mode == NEIGHBOUR:  # the place may just have been written, and the list still be another token's
            token = token_map.token(codebook, place)
            neighbour = _one_of(neighbours(tokenizer, codebook, token), neighbour)
        chosen = {NEIGHBOUR: neighbour, OTHER: other, RANDOM: random.randrange(tokenizer.model.codebook_size)}
        token = chosen[mode]
        if token is None:
            raise ValueError("This token has no such replacement: write one, or choose a random one.")
        tokens = token_map.replaced(codebook, place, int(token), where == EVERYWHERE)
        width, height = shown.picture.size
        picture = decode(tokenizer, tokens.reshape(shown.tokens.shape), height, width)
        text = html.replacement(token_map, codebook, place, tokens, shown.original, shown.picture, picture)
        near = None
        if token_map.factor is not None:
            row, column = token_map.row_and_column(place)
            middle = [int((number + 0.5) * token_map.factor) for number in (column, row)]
            near = draw_close_up([shown.picture, picture], middle)
        return [picture, draw_difference(shown.picture, picture, AMPLIFY), text, near]

    def _map(self, shown: Reconstruction | None) -> TokenMap:
        tokenizer = self.context.of(shown)
        if shown.tokens is None:
            raise ValueError(f"{shown.tokenizer} makes no tokens")
        return TokenMap.of(tokenizer, shown.tokens)

    @staticmethod
    def _place(token_map: TokenMap, codebook: int, row: int, column: int) -> tuple[int, int]:
        """Codebook and place, from 0, of what was written into the fields, from 1."""
        codebook, row, column = (int(number or 1) - 1 for number in (codebook, row, column))
        codebook = int(np.clip(codebook, 0, len(token_map.tokens) - 1))
        return codebook, token_map.place(row, column)


def _one_of(beside: list[int], chosen: int | None) -> int | None:
    """The chosen neighbour where it is one, else the nearest, or None where there is none."""
    return chosen if chosen in beside else next(iter(beside), None)
