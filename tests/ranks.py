"""Starts the ranks of a program, real processes, and reads what each left."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]


def run_ranks(module: str, world_size: int, folder: Path, *arguments: object) -> list[dict[str, Tensor]]:
    """What `python -m MODULE RANK WORLD_SIZE [ARGUMENT ...] FOLDER` saved as `FOLDER/RANK.pt`, by rank."""
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", module, *map(str, (rank, world_size, *arguments, folder))],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(outputs)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]
