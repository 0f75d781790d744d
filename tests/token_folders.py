"""What tests of extraction share: a small tokenizer, Parquet files of pictures, a small extraction."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
from vistok.extraction import extract

SIDE = 16  # pixels: 4 x 4 tokens


def tiny(side: int = SIDE, **fields) -> VQModelHF:
    """A tokenizer of 1,000 entries whose tokens are spread over all of them."""
    torch.manual_seed(0)
    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    model = VQModelHF(FSQConfig(**{"levels": [8, 5, 5, 5], "image_size": side, **fields}, network=network))
    with torch.no_grad():
        model.to_latents.weight.mul_(30)
    return model.eval()


def write_pictures(path: Path, files: list[bytes], first: int = 0) -> None:
    """A Parquet file of pictures whose label, caption and path tell the row."""
    rows = range(first, first + len(files))
    table = pa.table(
        {
            "image": [
                {"bytes": data, "path": f"{row:03d}.jpg"} for row, data in zip(rows, files, strict=True)
            ],
            "label": [row % 10 for row in rows],
            "caption": [f"picture {row}" for row in rows],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def run(model: VQModelHF, source, folder: Path, **options) -> dict:
    """An extraction with small numbers."""
    return extract(model, source, folder, **{"batch_size": 8, "shard_size": 25, "progress": False, **options})
