"""What strangers send: pictures and token files, read with limits, refused in one plain sentence."""

import os
from typing import Any

import gradio as gr
from PIL import Image

from ..image_decoding import UnreadableImageError, decode_image
from . import token_files

MAX_BYTES = 10 * 2**20  # of an upload
MAX_PIXELS = 25_000_000  # a 24-megapixel camera; 75 MB once decoded
MAX_ASPECT = 8  # longer side / shorter side
MIN_SIDE = 16  # pixels

_REFUSALS = {
    "empty": "The file is empty.",
    "too_many_bytes": f"The file has more than {MAX_BYTES // 2**20} MB: make it smaller.",
    "unidentified": "This is no picture that can be read: use JPEG, PNG, WebP, GIF, BMP or TIFF.",
    "truncated": "The picture's file ends too early: fetch or save it again.",
    "damaged": "The picture's file is damaged: fetch or save it again.",
    "too_many_pixels": f"The picture has more than {MAX_PIXELS // 10**6} megapixels: make it smaller.",
    "too_small": f"The picture is too small: both sides need {MIN_SIDE} pixels.",
    "aspect": f"The picture is more than {MAX_ASPECT} times as long as it is wide: crop it.",
    "mode_F": "The picture has 32-bit pixels of unknown range: save it with 8 bits a channel.",
    "mode_I": "The picture has 32-bit pixels of unknown range: save it with 8 bits a channel.",
    "unsupported": "This kind of TIFF is not read: save it as PNG.",
}

MISUNDERSTOOD = "This request was not understood: see what the endpoint takes, under API."


def read_picture(upload: dict[str, Any] | None) -> Image.Image | None:
    """The picture of an upload, RGB and upright, by vistok's own decoder; None where there is none.

    Gradio's own would decode a file of a few KB to gigapixels, and answers a broken one with server paths.

    Args:
        upload: What the frontend sends of a `gr.Image`.

    Raises:
        gr.Error: It is no picture, or beyond a limit.
    """
    data = _bytes_of(upload)
    if data is None:
        return None
    limits = {
        "max_bytes": MAX_BYTES,
        "max_pixels": MAX_PIXELS,
        "min_side": MIN_SIDE,
        "max_aspect": MAX_ASPECT,
    }
    try:
        return decode_image(data, **limits)
    except UnreadableImageError as error:
        raise refusal(_REFUSALS[error.reason]) from error


def read_token_file(upload: dict[str, Any] | None) -> token_files.TokenFile | None:
    """The tokens of an upload; None where there is none.

    Args:
        upload: What the frontend sends of a `gr.File`.

    Raises:
        gr.Error: It holds no tokens, or is beyond a limit.
    """
    data = _bytes_of(upload)
    if data is None:
        return None
    try:
        return token_files.read_tokens(data)
    except token_files.TokenFileError as error:
        raise refusal(str(error)) from error


def refusal(sentence: str) -> gr.Error:
    """An error that a visitor sees and that the server's log need not hold."""
    return gr.Error(sentence, title="Not this one", print_exception=False)


def _bytes_of(upload: dict[str, Any] | None) -> bytes | None:
    if upload is None:
        return None
    if not upload.get("path"):
        raise refusal("Upload the file: this page takes no addresses and no pasted data.")
    try:
        with open(upload["path"], "rb") as file:  # Gradio made sure that it lies among the uploads
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise refusal(_REFUSALS["too_many_bytes"])
            return file.read()
    except OSError as error:
        raise refusal("The upload is no longer there: upload it again.") from error
