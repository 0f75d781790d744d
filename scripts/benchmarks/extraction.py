"""How fast tokens are extracted, and how many bytes they take: vistok beside LlamaGen's way.

    python scripts/benchmarks/extraction.py --dataset_name PATH [--hidden_channels 32] [--rounds 3]

LlamaGen's way is written here plainly: one picture after another is opened, cropped by ADM's rule, encoded
alone by its network (the layers of `plain_vqgan.py` and a table of all distances), and saved as two `.npy`
files, int64. Both have the same weights; tokens that differ are counted. "Decoding alone" is all that happens
to a picture before the network, "encoding alone" the network on pixels that are there already; the slower of
the two is what an extraction could reach if everything else were free.

Each way runs in a process of its own, started anew for each round: ours keeps freed memory as the command
`vistok extract` does, LlamaGen's runs as Python starts it and, for the difference, once more with our
setting. All are timed in turn without their set-up, and the best round counts: other work on the machine only
ever makes things slower.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

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
from vistok.memory import keep_freed_memory


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_name", required=True, help="pictures in their original size")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument(
        "--hidden_channels", type=int, default=32, help="128 is the width of LlamaGen's VQ-16"
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    torch.set_num_threads(1)  # in this process: it forks, which a pool of threads would not survive
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ways = Ways(flags, folder)
        jobs = {
            "decoding_alone": (ways.decoding_alone, True),
            "encoding_alone": (lambda: ways.encoding_alone("fp32"), True),
            "encoding_alone_bf16": (lambda: ways.encoding_alone("bf16"), True),
            "ours": (lambda: ways.ours("fp32"), True),
            "ours_bf16": (lambda: ways.ours("bf16"), True),
            "llamagen": (ways.llamagen, False),
            "llamagen_keeping_memory": (ways.llamagen, True),
        }
        times: dict[str, list[Timing]] = {name: [] for name in jobs}
        for _ in range(flags.rounds):
            for name, (job, keep_memory) in jobs.items():
                timing = in_child(job, keep_memory, flags.threads)
                times[name].append(timing)
                sys.stderr.write(f"{name}: {timing.seconds:.1f} s, {timing.processor:.1f} processor s\n")
        print(json.dumps(summary(flags, folder, ways.source, times), indent=1))


class Timing(NamedTuple):
    """What a way took: seconds on the clock and of all processors, MiB at its peak, pictures."""

    seconds: float
    processor: float
    peak: float
    pictures: int


class Ways:
    """The ways to extract, and parts of ours. Each sets up and returns the job to time: it counts pictures.

    Args:
        flags: Those of the command.
        folder: Where tokens go.
    """

    def __init__(self, flags: argparse.Namespace, folder: Path):
        self.flags, self.folder = flags, folder
        self.source = open_dataset(flags.dataset_name, split=flags.split, memory_budget=0)
        self.views = Views(flags.resolution)

    def decoding_alone(self) -> Callable[[], int]:
        """Pictures from files to pixels."""
        return lambda: len(decode_all(self.source, self.views, self.flags.threads))

    def encoding_alone(self, dtype: str) -> Callable[[], int]:
        """Pixels to tokens."""
        pixels = decode_all(self.source, self.views, self.flags.threads)
        encoder = TokenEncoder(self.model(), self.flags.batch_size, dtype)
        encoder(encoder.buffer(*pixels[0].shape[:2]))
        return lambda: encode_all(encoder, pixels)

    def ours(self, dtype: str) -> Callable[[], int]:
        """The whole of it; but in bfloat16 the plan and its comparison of the dtypes are there already."""
        model = self.model()
        folder = self.folder / f"ours_{dtype}"
        shutil.rmtree(folder, ignore_errors=True)

        def job() -> int:
            return extract(
                model, self.source, folder, views=self.views, batch_size=self.flags.batch_size, dtype=dtype,
                decode_threads=self.flags.threads, progress=False,
            )["pictures"]  # fmt: skip

        if dtype == "bf16":
            job()
            shutil.rmtree(folder / "data")
        return job

    def llamagen(self) -> Callable[[], int]:
        """LlamaGen's."""
        model = self.model()
        network, table = PlainVQGAN(model), F.normalize(model.quantizer.codebook, dim=1).detach()
        shutil.rmtree(self.folder / "theirs", ignore_errors=True)
        return lambda: llamagen(network, table, self.source, self.flags.resolution, self.folder / "theirs")

    def model(self) -> VQModelHF:
        """LlamaGen's VQ-16 at the width asked for, the same weights each time."""
        torch.manual_seed(0)
        network = VQGANConfig(hidden_channels=self.flags.hidden_channels)
        size = {"codebook_size": 16384, "codebook_dim": 8, "normalize": True}
        return VQModelHF(VQConfig(**size, image_size=self.flags.resolution, network=network)).eval()


def in_child(way: Callable[[], Callable[[], int]], keep_memory: bool, threads: int) -> Timing:
    """Sets a way up and times it in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if keep_memory:
                keep_freed_memory()
            torch.set_num_threads(threads)
            job = way()
            started, busy = time.perf_counter(), time.process_time()
            pictures = job()
            seconds, processor = time.perf_counter() - started, time.process_time() - busy
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            os.write(writer, json.dumps([seconds, processor, peak, pictures]).encode())
            status = 0
        except Exception:
            traceback.print_exc()
        os._exit(status)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("A child failed")
    return Timing(*json.loads(answer))


def summary(
    flags: argparse.Namespace, folder: Path, source: Source, times: dict[str, list[Timing]]
) -> dict[str, Any]:
    """Speeds, bytes, and the tokens that differ."""
    [count] = {timing.pictures for timings in times.values() for timing in timings}
    best = {name: min(timing.seconds for timing in timings) for name, timings in times.items()}
    dataset = load_tokens(folder / "ours_fp32")
    theirs = np.stack(
        [np.load(folder / "theirs" / "imagenet_codes" / f"{i}.npy")[0, 0] for i in range(count)]
    )
    mine = np.stack([dataset[i]["tokens"].numpy() for i in range(count)])
    our_bytes = size_of((folder / "ours_fp32" / "data").glob("*.parquet")) / mine.size
    their_bytes = size_of((folder / "theirs").rglob("*.npy")) / mine.size
    uniform = bytes_of_uniform_tokens(folder / "ours_fp32", folder / "uniform", source, mine.shape)
    return {
        "pictures": count,
        "parameters_of_the_encoder": sum(p.numel() for p in Ways(flags, folder).model().encoder.parameters()),
        "pictures_per_second": {name: round(count / seconds, 1) for name, seconds in best.items()},
        "processor_ms_per_picture": {
            name: round(1000 * min(timing.processor for timing in timings) / count, 1)
            for name, timings in times.items()
        },
        "peak_MiB": {name: round(max(t.peak for t in timings)) for name, timings in times.items()},
        "share_of_the_limit": round(max(best["decoding_alone"], best["encoding_alone"]) / best["ours"], 3),
        "times_llamagen": round(best["llamagen"] / best["ours"], 2),
        "times_llamagen_bf16": round(best["llamagen"] / best["ours_bf16"], 2),
        "bytes_per_token": {
            "ours": round(our_bytes, 3),
            "ours, uniformly random tokens": round(uniform, 3),
            "llamagen": round(their_bytes, 3),
        },
        "share_of_its_bytes": round(uniform / their_bytes, 3),
        "tokens_that_differ": int((mine != theirs).sum()),
        "tokens_that_differ_bf16": Plan.read(folder / "ours_bf16").values["numerics"][
            "share_differing_from_float32"
        ],
        "tokens": mine.size,
        "batch_size": flags.batch_size,
        "threads": flags.threads,
        "load": [round(x, 1) for x in os.getloadavg()],
    }


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of files together."""
    return sum(path.stat().st_size for path in paths)


def decode_all(source: Source, views: Views, threads: int) -> list[np.ndarray]:
    """The pixels of every picture, by threads."""
    shards = (Shard(file, "", file, 0, None) for file in range(source.num_shards))  # all rows of each
    reader = RowReader(source)
    rows = (picture for shard in shards for picture in reader.read(shard))
    with ThreadPoolExecutor(threads) as pool:
        return [pixels[0] for _, pixels in pool.map(lambda picture: decode_row(picture, views), rows)]


def encode_all(encoder: TokenEncoder, pixels: list[np.ndarray]) -> int:
    """The tokens of pixels that are there already, whole batches."""
    batch = encoder.buffer(*pixels[0].shape[:2])
    for start in range(0, len(pixels), encoder.batch_size):
        some = pixels[start : start + encoder.batch_size]
        batch[: len(some)] = some
        encoder(batch)
    return len(pixels)


@torch.inference_mode()
def llamagen(network: PlainVQGAN, table: torch.Tensor, source: Source, side: int, folder: Path) -> int:
    """One picture at a time, two files each."""
    places = [folder / "imagenet_codes", folder / "imagenet_labels"]
    for place in places:
        place.mkdir(parents=True)
    i = 0
    for file in range(source.num_shards):
        for picture in source.read_shard(file):
            image = CROPS["adm_crop"](picture.decode(), side, None)
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)[None]
            z = F.normalize(network.encode(x).permute(0, 2, 3, 1).reshape(-1, 8), dim=1)
            distances = z.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * z @ table.T
            np.save(places[0] / f"{i}.npy", distances.argmin(1)[None, None].numpy())
            np.save(places[1] / f"{i}.npy", np.array([picture.label]))
            i += 1
    return i


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
