"""Flips bits of a dataset of tokens at random places, one at a time: does `verify` find each, does a reader?

    python scripts/benchmarks/extraction_damage.py [--flips 2000]

The files are shards, their records, the plan and the manifest. A flip in a shard must also stop
`load_tokens`. Then a shard is deleted, one is cut short, and two are exchanged.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
from vistok.data import open_dataset
from vistok.extraction import Views, extract, load_tokens, verify


def main() -> int:
    """Does the damage and prints what was found; 1 where something was not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
    model = VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=16, network=network)).eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tokens"
        source = open_dataset("samples", split="validation")
        extract(model, source, folder, views=Views(16), batch_size=16, shard_size=24, progress=False)
        if verify(folder, model=model, source=source).problems:
            raise SystemExit("the tokens are damaged before anything was done to them")
        draw, counts = random.Random(flags.seed), Counter()
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md"]
        # As many of the small files as of the shards: weighted by size alone they would hardly be drawn.
        weights = [path.stat().st_size ** 0.5 for path in files]
        for path in draw.choices(files, weights, k=flags.flips):
            kind = path.suffix if path.parent.name == "data" else path.name
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            counts[f"{kind} flipped"] += 1
            counts[f"{kind} found by verify"] += is_found(lambda: verify(folder).problems)
            if kind == ".parquet":
                counts[f"{kind} found on reading"] += is_found(lambda: load_tokens(folder) and False)
            path.write_bytes(whole)
        whole_damage(folder, counts)
        clean = not verify(folder, model=model, source=source).problems
    print(json.dumps({**dict(sorted(counts.items())), "clean_at_the_end": clean}, indent=1))
    flipped = sum(count for name, count in counts.items() if name.endswith("flipped"))
    found = sum(count for name, count in counts.items() if name.endswith("found by verify"))
    on_reading = counts[".parquet found on reading"] == counts[".parquet flipped"]
    return int(not clean or found != flipped + 3 or not on_reading)


def whole_damage(folder: Path, counts: Counter) -> None:
    """A shard that is gone, one that is cut short, two that are exchanged, their records too."""
    for name, damage in {"deleted": delete, "truncated": truncate, "exchanged": exchange}.items():
        shutil.copytree(folder, folder.with_name("copy"))
        damage(sorted((folder.with_name("copy") / "data").glob("*.parquet")))
        counts[f"{name} shard found by verify"] += is_found(lambda: verify(folder.with_name("copy")).problems)
        shutil.rmtree(folder.with_name("copy"))


def delete(shards: list[Path]) -> None:
    """Takes a shard away."""
    shards[1].unlink()


def truncate(shards: list[Path]) -> None:
    """Cuts the end off a shard."""
    shards[1].write_bytes(shards[1].read_bytes()[:-100])


def exchange(shards: list[Path]) -> None:
    """Gives two shards, and their records, each other's names."""
    for suffix in (".parquet", ".json"):
        a, b = shards[1].with_suffix(suffix), shards[2].with_suffix(suffix)
        first, second = a.read_bytes(), b.read_bytes()
        a.write_bytes(second)
        b.write_bytes(first)


def is_found(look: Callable[[], object]) -> bool:
    """Whether a look at the tokens says that something is wrong, by a list or by an error of ours."""
    try:
        return bool(look())
    except ValueError:
        return True


if __name__ == "__main__":
    sys.exit(main())
