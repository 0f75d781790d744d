"""How fast tokens are extracted, and how many bytes they take: vistok beside LlamaGen's way.

    python scripts/benchmarks/extraction.py --dataset_name PATH [--hidden_channels 32] [--rounds 3]

LlamaGen's way is written here plainly: one picture after another is opened, cropped by ADM's rule, encoded
alone by its network (the layers of `plain_vqgan.py` and a table of all distances), and saved as two `.npy`
files, int64. Both have the same weights; tokens that differ are counted. "Decoding alone" is all that happens
to a picture before the network, "encoding alone" the network on pixels that are there already; the slower of
the two is what an extraction could reach if everything else were free. All are timed in turn, and the best
round counts: other work on the machine only ever makes things slower.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from plain_vqgan import PlainVQGAN
from torch.nn import functional as F

from vistok import VQConfig, VQGANConfig, VQModelHF
from vistok.data import CROPS, Source, open_dataset
from vistok.extraction import Views, extract, load_tokens
from vistok.extraction.encoding import TokenEncoder
from vistok.extraction.plan import Plan, Shard
from vistok.extraction.rows import RowReader, decode_row
from vistok.extraction.shards import ShardWriter, TokenRow, shard_path


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_name", required=True, help="pictures in their original size")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument(
        "--hidden_channels", type=int, default=32, help="128 is the width of LlamaGen's VQ-16"
    )
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(flags.threads)
    network = VQGANConfig(hidden_channels=flags.hidden_channels)
    config = VQConfig(
        codebook_size=16384, codebook_dim=8, normalize=True, image_size=flags.resolution, network=network
    )
    model = VQModelHF(config).eval()
    source = open_dataset(flags.dataset_name, split=flags.split, memory_budget=0)
    views = Views(flags.resolution)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pixels = decode_all(source, views, flags.threads)
        count = len(pixels)
        encoder = TokenEncoder(model, flags.batch_size)

        def ours() -> None:
            shutil.rmtree(folder / "ours", ignore_errors=True)
            extract(
                model, source, folder / "ours", views=views, batch_size=flags.batch_size,
                decode_threads=flags.threads, progress=False,
            )  # fmt: skip

        jobs = {
            "decoding_alone": lambda: decode_all(source, views, flags.threads),
            "encoding_alone": lambda: encode_all(encoder, pixels),
            "ours": ours,
            "llamagen": lambda: llamagen(model, source, flags.resolution, folder / "theirs", plain=True),
            "one_by_one_with_our_network": lambda: llamagen(
                model, source, flags.resolution, folder / "theirs", plain=False
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        processor: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(flags.rounds):
            for name, job in jobs.items():
                started, busy = time.perf_counter(), time.process_time()
                job()
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(time.process_time() - busy)
                sys.stderr.write(
                    f"{name}: {seconds[name][-1]:.1f} s, {processor[name][-1]:.1f} processor s\n"
                )
        speed = {name: count / min(times) for name, times in seconds.items()}
        limit = min(speed["decoding_alone"], speed["encoding_alone"])
        dataset = load_tokens(folder / "ours")
        theirs = [np.load(folder / "theirs" / "imagenet_codes" / f"{i}.npy")[0, 0] for i in range(count)]
        mine = np.stack([dataset[i]["tokens"].numpy() for i in range(count)])
        our_bytes = (
            sum(path.stat().st_size for path in (folder / "ours" / "data").glob("*.parquet")) / mine.size
        )
        their_bytes = sum(p.stat().st_size for p in (folder / "theirs").rglob("*.npy")) / mine.size
        uniform = bytes_of_uniform_tokens(folder / "ours", folder / "uniform", source, mine.shape)
        result = {
            "pictures": count,
            "parameters_of_the_encoder": sum(p.numel() for p in model.encoder.parameters()),
            "pictures_per_second": {name: round(value, 1) for name, value in speed.items()},
            "processor_ms_per_picture": {
                name: round(1000 * min(times) / count, 1) for name, times in processor.items()
            },
            "share_of_the_limit": round(speed["ours"] / limit, 3),
            "times_llamagen": round(speed["ours"] / speed["llamagen"], 2),
            "bytes_per_token": {
                "ours": round(our_bytes, 3),
                "ours, uniformly random tokens": round(uniform, 3),
                "llamagen": round(their_bytes, 3),
            },
            "share_of_its_bytes": round(uniform / their_bytes, 3),
            "tokens_that_differ": int((mine != np.stack(theirs)).sum()),
            "tokens": mine.size,
            "threads": flags.threads,
            "load": [round(x, 1) for x in os.getloadavg()],
        }
    print(json.dumps(result, indent=1))


def decode_all(source: Source, views: Views, threads: int) -> list[np.ndarray]:
    """The pixels of every picture, by threads."""
    shards = (Shard(file, "", file, 0, None) for file in range(source.num_shards))  # all rows of each
    reader = RowReader(source)
    rows = (picture for shard in shards for picture in reader.read(shard))
    with ThreadPoolExecutor(threads) as pool:
        return [pixels[0] for _, pixels in pool.map(lambda picture: decode_row(picture, views), rows)]


def encode_all(encoder: TokenEncoder, pixels: list[np.ndarray]) -> None:
    """The tokens of pixels that are there already, whole batches."""
    batch = encoder.buffer(*pixels[0].shape[:2])
    for start in range(0, len(pixels), encoder.batch_size):
        some = pixels[start : start + encoder.batch_size]
        batch[: len(some)] = some
        encoder(batch)


@torch.inference_mode()
def llamagen(model: VQModelHF, source: Source, side: int, folder: Path, plain: bool) -> None:
    """One picture at a time, two files each; `plain`: by the layers as LlamaGen computes them."""
    shutil.rmtree(folder, ignore_errors=True)
    places = [folder / "imagenet_codes", folder / "imagenet_labels"]
    for place in places:
        place.mkdir(parents=True)
    network = PlainVQGAN(model) if plain else None
    table = F.normalize(model.quantizer.codebook, dim=1)
    i = 0
    for file in range(source.num_shards):
        for picture in source.read_shard(file):
            image = CROPS["adm_crop"](picture.decode(), side, None)
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)[None]
            if plain:
                z = F.normalize(network.encode(x).permute(0, 2, 3, 1).reshape(-1, 8), dim=1)
                distances = z.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * z @ table.T
                tokens = distances.argmin(1)[None]
            else:
                tokens = model.encode(x).tokens.flatten(1)
            np.save(places[0] / f"{i}.npy", tokens.numpy()[:, None])
            np.save(places[1] / f"{i}.npy", np.array([picture.label]))
            i += 1


def bytes_of_uniform_tokens(tokens: Path, folder: Path, source: Source, shape: tuple[int, int]) -> float:
    """Bytes a token of a shard whose tokens cannot be compressed: every entry is as likely as any other."""
    plan = Plan.read(tokens)
    draw = np.random.default_rng(0)
    values = draw.integers(0, plan.values["tokenizer"]["codebook_size"], shape).astype(plan.token_dtype)
    writer = ShardWriter(folder, plan, plan.shards[0], source.keep_types)
    writer.write(
        [TokenRow(i, f"{i:08d}.JPEG", draw.bytes(32), i, None, 0, row[None]) for i, row in enumerate(values)]
    )
    writer.commit("cpu")
    return shard_path(folder, plan.shards[0]).stat().st_size / values.size


if __name__ == "__main__":
    main()
