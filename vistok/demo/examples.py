"""Pictures to begin with: the photographs of the scikit-image wheel."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from PIL import Image

from ..data.samples import photograph_files
from ..image_decoding import decode_image

THUMBNAIL = 160  # pixels


@cache
def example_files() -> dict[str, str]:
    """The photographs as files by name, in a folder of this process."""
    folder = Path(tempfile.mkdtemp(prefix="vistok-examples-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    paths = {}
    for name, data in photograph_files().items():
        paths[name] = str(folder / f"{name}.{'jpg' if data.startswith(bytes([0xFF])) else 'png'}")
        Path(paths[name]).write_bytes(data)
    return paths


def example(name: str) -> Image.Image:
    """A photograph, RGB."""
    return decode_image(Path(example_files()[name]).read_bytes())


def thumbnails() -> list[tuple[Image.Image, str]]:
    """Small pictures with their names, for a gallery."""
    found = []
    for name in example_files():
        small = example(name)
        small.thumbnail((2 * THUMBNAIL, THUMBNAIL))
        found.append((small, name))
    return found
