"""The card of a tokenizer: what it is and how to use it; a training run adds its data and its scores."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .modeling import VQModelHF
from .pretrained import COMPANIONS

# At the end of a card that nobody wrote: the next save into that folder may replace it.
UNTOUCHED = "<!-- Remove this line to keep this card when the model is saved again. -->"
_USE = """\
```python
import torch
from PIL import Image
from vistok import VistokImageProcessor, VQModelHF

model = VQModelHF.from_pretrained("{name}").eval()
processor = VistokImageProcessor.from_pretrained("{name}")
pixel_values = processor(Image.open("picture.jpg"), return_tensors="pt")["pixel_values"]
with torch.no_grad():
    tokens = model.encode(pixel_values).tokens  # int64 (1, {token_shape})
    picture = processor.postprocess(model.decode(tokens))[0]  # PIL.Image
```
"""


def write_model_card(
    model: VQModelHF,
    folder: str | Path,
    *,
    name: str | None = None,
    sections: dict[str, str] | None = None,
    datasets: list[str] | None = None,
) -> Path:
    """Writes `README.md`, the model card, into a folder.

    Args:
        model: The tokenizer that the card describes.
        folder: Where the card goes.
        name: The Hub repository or folder that the example loads; by default the folder's name.
        sections: Further sections, heading to Markdown text, such as a run's results.
        datasets: Hub ids of the training data.

    Returns:
        The path of the card.
    """
    folder = Path(folder)
    name = name or folder.resolve().name
    try:
        token_shape = ", ".join(map(str, model.token_shape))
        use = _USE.format(name=name, token_shape=token_shape)
    except ValueError:  # without quantization there are no tokens to show
        use = "`VQModelHF.encode_latents` and `VQModelHF.decode_quantized`: this baseline has no tokens.\n"
    data = ModelCardData(
        library_name="vistok",
        pipeline_tag="image-feature-extraction",
        tags=["vistok", "visual-tokenizer", model.config.model_type],
        datasets=datasets,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name.split('/')[-1]}",
        _describe(model),
        "## Use",
        use.rstrip(),
    ]
    for heading, text in (sections or {}).items():
        parts += [f"## {heading}", text]
    card = ModelCard("\n\n".join(parts).rstrip() + "\n")
    path = folder / "README.md"
    card.save(path)
    return path


def _describe(model: VQModelHF) -> str:
    config = model.config
    rows = {
        "quantizer": config.model_type.removeprefix("vistok_"),
        **config.own_values(),
        "codebooks": config.num_codebooks,
        "entries per codebook": model.codebook_size or None,
        "network": config.network.model_type.removeprefix("vistok_"),
        **config.network.own_values(),
        "picture": f"{config.image_size} x {config.image_size} pixels",
        "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M",
    }
    if config.num_codebooks > 1:
        rows["codebook layout"] = config.codebook_layout + (", shared" if config.shared_codebook else "")
    lines = [f"| {key.replace('_', ' ')} | {value} |" for key, value in rows.items() if value is not None]
    text = "A visual tokenizer: it turns pictures into tokens and tokens into pictures."
    return "\n".join([text, "", "| | |", "|---|---|", *lines])


def _beside_model(model: VQModelHF, folder: Path, name: str) -> None:
    card = folder / "README.md"
    if not card.exists() or UNTOUCHED in card.read_text(encoding="utf-8"):
        write_model_card(model, folder, name=name)
        with card.open("a", encoding="utf-8") as file:
            file.write(f"\n{UNTOUCHED}\n")


COMPANIONS.append(_beside_model)
