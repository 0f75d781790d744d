"""The Python lines that do what the page just did."""

from .reconstruction import Reconstruction
from .tokenizers import Tokenizer


def python_lines(tokenizer: Tokenizer, result: Reconstruction) -> str:
    """A program that makes a reconstruction, and its tokens, from a file.

    Args:
        tokenizer: Which tokenizer.
        result: What the page shows.
    """
    processor, (width, height) = result.processor, result.original.size
    if processor.do_center_crop:
        options = f'size={{"shortest_edge": {width}}}, crop_size={{"height": {height}, "width": {width}}}'
    else:
        options = f'size={{"height": {height}, "width": {width}}}, do_center_crop=False'
    if processor.size_divisor:
        options += f", size_divisor={processor.size_divisor}"
    lines = [
        "import numpy as np",
        "import torch",
        "from PIL import Image",
        "",
        "from vistok import VistokImageProcessor, VQModelHF",
        "",
        f"model = VQModelHF.from_pretrained({tokenizer.name!r}).eval()  # a folder or a Hub id",
        f"processor = VistokImageProcessor({options})",
        'pixel_values = processor(Image.open("photo.jpg"), return_tensors="pt")["pixel_values"]',
        "with torch.no_grad():",
    ]
    if result.tokens is None:
        lines += ["    pixels = model(pixel_values).reconstruction"]
    else:
        shape = ", ".join(map(str, result.tokens.shape))
        lines += [
            f"    tokens = model.encode(pixel_values).tokens  # int64 (1, {shape})",
            "    pixels = model.decode(tokens)",
            'np.save("tokens.npy", tokens[0].numpy())',
        ]
    lines += [
        f"picture = VistokImageProcessor().postprocess(pixels[:, :, :{height}, :{width}])[0]",
        'picture.save("reconstruction.png")',
    ]
    return "\n".join(lines)
