"""The API: `reconstruct`, `tokenize` and `decode`, for `gradio_client` and plain HTTP."""

import math
from typing import Any

import gradio as gr
from PIL import Image

from .bring_back import decode_file
from .context import Context
from .reconstruction import Reconstruction, reconstruct
from .token_files import content_of, from_content

GUIDE = """
This page has an API. In Python, with `pip install gradio_client`:

```python
from gradio_client import Client, handle_file

client = Client("{address}")
picture, numbers = client.predict(handle_file("photo.jpg"), api_name="/reconstruct")
tokens = client.predict(handle_file("photo.jpg"), api_name="/tokenize")
picture = client.predict(tokens, api_name="/decode")
```

- `/reconstruct` takes `image`, a file; `tokenizer`, one of {names}; and `size`, the shorter side in pixels.
  It gives the path of a PNG file and the numbers: `psnr` (dB, null where pictures are equal), `ssim`,
  `tokens`, `bits_per_pixel`, `entries_used`, `seconds`.
- `/tokenize` takes the same. It gives `tokenizer`, `height`, `width` and `tokens`, nested lists of numbers.
- `/decode` takes `tokens`, nested lists of whole numbers or what `/tokenize` gives, and `tokenizer`. It gives
  the path of a PNG file.

Without `tokenizer` it is the first, or the one that the tokens name; without `size`, the tokenizer's usual
one. Over plain HTTP every field must be sent, in this order, with `""` and `0` for what you leave open:
`{{"data": [{{"path": ..., "meta": {{"_type": "gradio.FileData"}}}}, "", 0]}}`, with the path that an upload
gave. What cannot be done is an
error with one sentence. Files have at most 10 MB and 25 megapixels, addresses are not fetched, and at most
{waiting} requests wait in the queue.
"""


class Endpoints:
    """The three named endpoints; nothing of them is seen on the page.

    Args:
        context: What the page shows.
    """

    def __init__(self, context: Context):
        self.context = context

    def draw(self) -> None:
        """Makes the hidden components whose labels name the parameters, and connects them."""
        with gr.Row(visible=False):
            image = gr.Image(label="image", type="filepath", sources=["upload"])
            tokenizer = gr.Textbox(label="tokenizer", value="")
            size = gr.Number(label="size", value=0, precision=0)
            tokens = gr.JSON(label="tokens")
            picture = gr.Image(label="picture", type="pil", format="png")
            numbers, described = gr.JSON(label="numbers"), gr.JSON(label="tokens")
            for function, inputs, outputs in (
                (self.reconstruct, [image, tokenizer, size], [picture, numbers]),
                (self.tokenize, [image, tokenizer, size], described),
                (self.decode, [tokens, tokenizer], picture),
            ):
                public = {"api_name": function.__name__, "api_visibility": "public"}
                gr.Button().click(**self.context.on(function, inputs=inputs, outputs=outputs, **public))

    def reconstruct(
        self, image: Image.Image | None, tokenizer: str = "", size: int = 0
    ) -> tuple[Image.Image, dict[str, Any]]:
        """Turns a picture into tokens and back: the picture, and the numbers that the page shows."""
        result = self._result(image, tokenizer, size)
        return result.picture, {
            name: value if math.isfinite(value) else None for name, value in result.numbers.items()
        }

    def tokenize(self, image: Image.Image | None, tokenizer: str = "", size: int = 0) -> dict[str, Any]:
        """Turns a picture into tokens, with what it takes to make the picture again."""
        return content_of(self._result(image, tokenizer, size))

    def decode(self, tokens: Any, tokenizer: str = "") -> Image.Image:
        """Turns tokens into a picture."""
        return decode_file(self.context, from_content(tokens), tokenizer)[0]

    def _result(self, image: Image.Image | None, name: str, size: int) -> Reconstruction:
        if image is None:
            raise ValueError("There is no image: pass handle_file of a picture")
        return reconstruct(self.context.tokenizer(name), image, size or None)
