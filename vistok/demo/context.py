"""What the parts of the page share: the tokenizers, and how a visitor's request becomes a function's call."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..messages import one_line
from .reconstruction import Reconstruction
from .tokenizers import Tokenizer
from .uploads import MISUNDERSTOOD, read_picture, read_token_file, refusal

AT_ONCE = 2  # requests that compute; each uses all cores
NO_PICTURE = "Drop a picture first, or pick an example."


@dataclass(frozen=True)
class Context:
    """The tokenizers of a page.

    Attributes:
        tokenizers: By the names that the page shows.
        gpu: What lends a function a GPU while it runs: `spaces.GPU` on ZeroGPU; elsewhere it does nothing.
    """

    tokenizers: dict[str, Tokenizer]
    gpu: Callable[[Callable], Callable]

    @property
    def first(self) -> Tokenizer:
        """The tokenizer that the page begins with."""
        return next(iter(self.tokenizers.values()))

    def tokenizer(self, name: str | None) -> Tokenizer:
        """The tokenizer of a name, or the first.

        Raises:
            ValueError: There is none of that name.
        """
        if not name:
            return self.first
        if name not in self.tokenizers:
            known = ", ".join(self.tokenizers)
            raise ValueError(f"There is no tokenizer {name[:80]!r} here; there are: {known}")
        return self.tokenizers[name]

    def of(self, shown: Reconstruction | None) -> Tokenizer:
        """The tokenizer of what a visitor sees.

        Raises:
            ValueError: There is nothing to see yet.
        """
        if shown is None:
            raise ValueError(NO_PICTURE)
        return self.tokenizers[shown.tokenizer]

    def on(
        self, function: Callable, inputs: Any, outputs: Any, selects: bool = False, **event: Any
    ) -> dict[str, Any]:
        """The arguments of an event that computes.

        All of them share one queue; who asks faster than it answers gets the last answer. A `ValueError` of
        the function is a sentence that the visitor sees.

        Args:
            function: What runs; of a picture it gets `Image | None`, of a file of tokens `TokenFile | None`.
            inputs: Its component, or components.
            outputs: Where its results go.
            selects: Whether it is called by a `select`: its first argument is then what was selected, an
                index or a pixel `[x, y]`.
            event: Other arguments of the event; by default it is hidden from the API.
        """
        components = list(inputs) if isinstance(inputs, Sequence) else [inputs]
        call = _with_sentences(self.gpu(_with_refusals(function)))
        if any(isinstance(component, gr.Image | gr.File) for component in components):
            call = _reading(call, components)
            event["preprocess"] = False
        call = _selecting(call) if selects else call
        shared = {
            "concurrency_id": "model",
            "concurrency_limit": AT_ONCE,
            # Gradio asks again with what was selected first: each selection is asked for at once.
            "trigger_mode": "multiple" if selects else "always_last",
            "api_visibility": "private",
        }
        return shared | event | {"fn": call, "inputs": components, "outputs": outputs}


@dataclass(frozen=True)
class _Refused:
    """A sentence on its way out of the process that has the GPU, which may not let exceptions through."""

    sentence: str


def _with_refusals(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            return _Refused(one_line(error))

    return wrapped


def _with_sentences(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, _Refused):
            raise refusal(result.sentence)
        return result

    return wrapped


def _selecting(function: Callable) -> Callable:
    """A function that Gradio tells what was selected; its event does not go to the process with the GPU."""

    def wrapped(event: gr.SelectData, *values: Any) -> Any:
        return function(event.index, *values)

    return wrapped


def _reading(function: Callable, components: Sequence[gr.components.Component]) -> Callable:
    """A function that takes what the frontend sent; pictures and token files are read by our own readers."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        read = []
        for component, value in zip(components, values, strict=True):
            if isinstance(component, gr.Image):
                read.append(read_picture(value))
            elif isinstance(component, gr.File):
                read.append(read_token_file(value))
            else:
                read.append(_preprocessed(component, value))
        return function(*read)

    return wrapped


def _preprocessed(component: gr.components.Component, value: Any) -> Any:
    """What Gradio makes of a value, which may be of any type."""
    if isinstance(component, gr.Radio):
        return value  # its choices change with the tokenizer, and this component knows the first ones alone
    try:
        return component.preprocess(value)
    except gr.Error:
        raise
    except Exception as error:
        raise refusal(MISUNDERSTOOD) from error
