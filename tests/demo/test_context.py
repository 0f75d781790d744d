"""How a request becomes a function's call, on ZeroGPU too, where it crosses to another process."""

import pickle

import gradio as gr
import numpy as np
import pytest

from vistok.demo.context import Context
from vistok.demo.reconstruction import Reconstruction, reconstruct


def elsewhere(function):
    """What ZeroGPU does to a function: arguments and results are pickled, and no exception comes through."""

    def wrapped(*values):
        try:
            return pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(values)))))
        except Exception:
            raise RuntimeError("GPU task aborted") from None

    return wrapped


@pytest.fixture
def context(tokenizers):
    return Context({"grid": tokenizers["grid"]}, elsewhere)


def test_a_refusal_comes_back_as_a_sentence(context):
    def compute(text):
        raise ValueError(f"Expected something else\n than {text}.")

    event = context.on(compute, gr.Textbox(render=False), [])
    with pytest.raises(gr.Error) as refused:
        event["fn"]("this")
    assert refused.value.message == "Expected something else than this"


def test_a_selection_goes_over_as_its_index(context):
    def compute(pixel, text):
        return pixel, text

    event = context.on(compute, gr.Textbox(render=False), [], selects=True)
    chosen = gr.SelectData(None, {"index": [3, 4], "value": None})
    assert event["fn"](chosen, "text") == ([3, 4], "text")


def test_uploads_are_read_before(context, photograph, tmp_path):
    photograph.save(tmp_path / "photo.png")
    event = context.on(lambda picture: picture.size, gr.Image(type="filepath", render=False), [])
    assert event["preprocess"] is False
    assert event["fn"]({"path": str(tmp_path / "photo.png")}) == (451, 300)
    with pytest.raises(gr.Error, match="no longer there"):
        event["fn"]({"path": str(tmp_path / "nothing.png")})


def test_a_reconstruction_crosses_over(tokenizers, photograph):
    shown = reconstruct(tokenizers["grid"], photograph, 128)
    again: Reconstruction = pickle.loads(pickle.dumps(shown))
    assert np.array_equal(again.tokens, shown.tokens)
    assert again.numbers == shown.numbers
    assert again.processor.to_dict() == shown.processor.to_dict()


def test_the_first_tokenizer_is_the_default_and_unknown_ones_are_refused(context):
    assert context.tokenizer("") is context.tokenizer(None) is context.first
    with pytest.raises(ValueError, match="There is no tokenizer 'x' here; there are: grid"):
        context.tokenizer("x")
    with pytest.raises(ValueError, match="Drop a picture first"):
        context.of(None)
