"""Tokens as files, to take away and to bring back: `.json` and `.npy`."""

import io
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .reconstruction import Reconstruction
from .tokenizers import Tokenizer

MAX_BYTES = 4 * 2**20  # of a file: a million tokens are 2 MB as text
MOST_PIXELS = 2**20  # of the picture that tokens give: some 4 s on 2 CPU cores


class TokenFileError(ValueError):
    """A file that holds no tokens; the message says what to do."""


@dataclass(frozen=True)
class TokenFile:
    """What a file of tokens holds.

    Attributes:
        tokens: One picture's tokens.
        height: Of the picture without padding, in pixels; None where the file does not tell.
        width: Of the picture without padding, in pixels.
        tokenizer: The name of the tokenizer that made them; None where the file does not tell.
    """

    tokens: np.ndarray
    height: int | None = None
    width: int | None = None
    tokenizer: str | None = None


def content_of(result: Reconstruction) -> dict[str, Any]:
    """The tokens of a reconstruction as nested lists, with what it takes to make the picture again.

    Raises:
        TokenFileError: Its tokenizer makes no tokens.
    """
    if result.tokens is None:
        raise TokenFileError(f"{result.tokenizer} makes no tokens")
    width, height = result.original.size
    return {"tokenizer": result.tokenizer, "height": height, "width": width, "tokens": result.tokens.tolist()}


def as_json(result: Reconstruction) -> bytes:
    """A JSON file of a reconstruction's tokens."""
    return json.dumps(content_of(result)).encode()


def as_npy(tokens: np.ndarray) -> bytes:
    """A NumPy file of tokens."""
    file = io.BytesIO()
    np.save(file, tokens)
    return file.getvalue()


def read_tokens(data: bytes) -> TokenFile:
    """Reads a `.npy` or `.json` file of any origin.

    Raises:
        TokenFileError: The file is too long or holds no array of numbers.
    """
    if len(data) > MAX_BYTES:
        raise TokenFileError(f"The file has {len(data):,} bytes and the limit is {MAX_BYTES:,}")
    return _read_npy(data) if data.startswith(b"\x93NUMPY") else _read_json(data)


def as_array(tokens: object) -> np.ndarray:
    """Nested lists of numbers as an array.

    Raises:
        TokenFileError: They are ragged, or something in them is no number.
    """
    try:
        array = np.array(tokens)
    except (ValueError, OverflowError) as error:
        raise TokenFileError("Expected tokens in lists of one length each, got ragged lists") from error
    if array.dtype.kind not in "iufb" or array.dtype == np.uint64:
        raise TokenFileError(f"Expected tokens that are whole numbers below 2^63, got {_kind(tokens)}")
    return array


def check_amount(tokenizer: Tokenizer, tokens: np.ndarray) -> None:
    """Raises `TokenFileError` for no tokens, and for those of a larger picture than a page should compute."""
    if tokens.size == 0:
        raise TokenFileError(f"Expected tokens, got none in shape {tokens.shape}")
    factor = tokenizer.model.downsample_factor or 1
    most = max(MOST_PIXELS, tokenizer.model.config.image_size**2) // factor**2 * tokenizer.num_codebooks
    if tokens.size > most:
        raise TokenFileError(
            f"Expected at most {most:,} tokens here, got {tokens.size:,}; decode them at home"
        )


def _read_npy(data: bytes) -> TokenFile:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(file)
    except (ValueError, KeyError) as error:
        raise TokenFileError("The .npy file has no header that NumPy 1.0 wrote: save it anew") from error
    # NumPy would allocate what the header claims, and unpickle objects.
    if dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize != len(data):
        raise TokenFileError(f"The .npy file does not hold the numbers of shape {shape} that it declares")
    file.seek(0)
    return TokenFile(as_array(np.load(file, allow_pickle=False)))


def _read_json(data: bytes) -> TokenFile:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TokenFileError("The file is neither .npy nor JSON: bring back what you took away") from error
    return from_content(content)


def from_content(content: object) -> TokenFile:
    """Reads tokens out of nested lists, or of what `content_of` gives.

    Raises:
        TokenFileError: It is neither.
    """
    if not isinstance(content, dict):
        return TokenFile(as_array(content))
    if "tokens" not in content:
        raise TokenFileError('There are no "tokens" in it: bring back what you took away')
    lengths = [content.get("height"), content.get("width")]
    for name, length in zip(("height", "width"), lengths, strict=True):
        if length is not None and (type(length) is not int or length < 1):
            raise TokenFileError(f"{name} must be a whole number of at least 1, got {_kind(length)}")
    name = content.get("tokenizer")
    return TokenFile(as_array(content["tokens"]), *lengths, name if isinstance(name, str) else None)


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return str(value.dtype)
    while isinstance(value, list) and value:
        value = value[0]
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
