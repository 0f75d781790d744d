"""One rank of `test_ranks.py`: a model evaluated on its share of a split, saved for comparison.

    python -m tests.evaluation.evaluate_rank RANK WORLD_SIZE SPLIT BATCH_SIZE... FOLDER

SPLIT is the folder of the model and the pictures.
"""

import json
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from vistok import VQModelHF
from vistok.data import open_dataset
from vistok.evaluation import Measures, evaluate
from vistok.evaluation.report import to_json
from vistok.evaluation.usage import CodebookUsage

from .small_inception import SmallInception

METRICS = ("l1", "mse", "psnr", "ssim", "rfid", "kid", "inception_score")


def measure(rank: int, folder: Path, batch_sizes: Sequence[int]) -> dict[str, dict]:
    """What evaluations of several batch sizes say, as JSON keeps it, and the use of a very large codebook."""
    model = VQModelHF.from_pretrained(folder / "model")
    measures = Measures(METRICS, inception=SmallInception())
    source = open_dataset(str(folder / "pictures"), split="train")
    results = {
        str(size): evaluate(
            model, source, measures=measures, batch_size=size, on_error="skip", progress=False
        )
        for size in batch_sizes
    }
    alone = Measures(("rfid",), inception=SmallInception())
    results["rfid alone"] = evaluate(model, source, measures=alone, on_error="skip", progress=False)
    large = CodebookUsage(2**40)  # too large for a table
    large.update(torch.tensor([rank, 7, 2**40 - 1]))
    large.add_other_ranks()
    results["large"] = large.compute()
    return json.loads(to_json(results))


def main(rank: int, world_size: int, split: Path, batch_sizes: list[int], folder: Path) -> None:
    torch.set_num_threads(1)
    logging.disable()  # the pictures that are skipped are named
    store = f"file://{folder}/store"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=120)
    )
    torch.save(measure(rank, split, batch_sizes), folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    rank, world_size, split, *batch_sizes, folder = sys.argv[1:]
    main(int(rank), int(world_size), Path(split), [int(size) for size in batch_sizes], Path(folder))
