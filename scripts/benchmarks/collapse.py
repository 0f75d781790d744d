"""A planted problem: which methods bring badly initialized entries to the data, and use them all?

    python scripts/benchmarks/collapse.py [--codebook_size 256] [--seed 0] [--methods VQ OptVQ]
    python scripts/benchmarks/collapse.py --gif docs/optvq_toy.gif

The data are Gaussian clusters, four for each entry, whose weights are long-tailed (the k-th largest has 1/k
of the largest). Every table of entries begins in one corner, far from all of them. A method sees the data as
its latents; those without a table, and SimVQ, see those of a small network, which learns to reconstruct the
data from the quantized vectors; GumbelVQ sees the logits of a linear layer. The exit status is 1 where a
method does not end as it must: plain VQ collapsed, the remedies with at least 95 % of their entries in use.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from drawing import GREEN, RED, panel, save_animation
from torch import Tensor, nn
from torch.nn import functional as F

from vistok.evaluation import CodebookUsage
from vistok.quantizers import BSQ, EMAVQ, FSQ, IBQ, LFQ, SFSQ, VQ, GumbelVQ, OptVQ, Quantizer, SimVQ

CORNER, CORNER_SPREAD = 3.0, 0.01  # of the entries; the clusters' centres are N(0, 1) in each channel
CLUSTERS_PER_ENTRY, CLUSTER_SPREAD = 4, 0.1
HIDDEN = 128  # channels of the one hidden layer of encoder and decoder
TEST_DATA = 65_536
SOLVED, COLLAPSED = (0.95, 1.0), (0.0, 0.1)
# Levels and bits that make about so many entries.
IMPLICIT = {16: ([4, 4], 4), 256: ([8, 6, 5], 8), 1024: ([8, 5, 5, 5], 10), 4096: ([7, 5, 5, 5, 5], 12)}


@dataclass(frozen=True)
class Sizes:
    """How large the problem is."""

    codebook_size: int = 256
    dim: int = 8
    steps: int = 2000
    batch_size: int = 1024


@dataclass(frozen=True)
class Method:
    """A way to quantize, and how it is trained.

    Attributes:
        build: Makes the quantizer.
        learning_rate: Of Adam, constant; None where nothing learns by gradients.
        latents: What the quantizer sees: `"data"`, `"logits"`, which a linear layer makes of the data, or a
            `"network"`'s latents, of an encoder that is trained with a decoder.
        usage: The least and the largest usage to end with, where the method must.
    """

    build: Callable[[Sizes], Quantizer]
    learning_rate: float | None = 1e-2
    latents: Literal["data", "logits", "network"] = "data"
    usage: tuple[float, float] | None = None


# The gradient of "rotation" reaches the latents alone: with the data as latents it would be plain VQ.
METHODS = {
    "VQ": Method(lambda s: VQ(s.codebook_size, s.dim), usage=COLLAPSED),
    "VQ, trained latents": Method(lambda s: VQ(s.codebook_size, s.dim), latents="network"),
    "VQ, rotation, trained latents": Method(
        lambda s: VQ(s.codebook_size, s.dim, gradient="rotation"), latents="network"
    ),
    "VQ, entropy": Method(
        lambda s: VQ(s.codebook_size, s.dim, entropy_weight=1.0, entropy_temperature=1.0), learning_rate=0.1
    ),
    "VQ, k-means": Method(lambda s: VQ(s.codebook_size, s.dim, initialization="kmeans"), usage=SOLVED),
    "EMAVQ, no revival": Method(
        lambda s: EMAVQ(s.codebook_size, s.dim, revival_threshold=0), learning_rate=None
    ),
    "EMAVQ": Method(lambda s: EMAVQ(s.codebook_size, s.dim), learning_rate=None, usage=SOLVED),
    "GumbelVQ": Method(
        lambda s: GumbelVQ(
            s.codebook_size,
            s.dim,
            temperature=2.0,
            final_temperature=0.5,
            kl_weight=0.02,
            anneal_steps=s.steps,
        ),
        learning_rate=0.1,
        latents="logits",
    ),
    "SimVQ, data as latents": Method(lambda s: SimVQ(s.codebook_size, s.dim), learning_rate=0.1),
    "SimVQ": Method(lambda s: SimVQ(s.codebook_size, s.dim), latents="network", usage=SOLVED),
    "IBQ": Method(
        lambda s: IBQ(s.codebook_size, s.dim, normalize=False, entropy_weight=0.3, entropy_temperature=1.0)
    ),
    "OptVQ": Method(lambda s: OptVQ(s.codebook_size, s.dim), usage=SOLVED),
    "FSQ": Method(lambda s: FSQ(IMPLICIT[s.codebook_size][0]), latents="network", usage=SOLVED),
    "SFSQ": Method(lambda s: SFSQ(IMPLICIT[s.codebook_size][0]), latents="network"),
    "LFQ": Method(lambda s: LFQ(IMPLICIT[s.codebook_size][1]), latents="network"),
    "BSQ": Method(lambda s: BSQ(IMPLICIT[s.codebook_size][1]), latents="network"),
}


class Clusters:
    """Data of Gaussian clusters with long-tailed weights.

    Args:
        count: Number of clusters.
        dim: Channels.
        seed: Of the centres and the draws.
    """

    def __init__(self, count: int, dim: int, seed: int):
        # With the seed itself the centres would be the numbers that the entries are made of.
        self.generator = torch.Generator().manual_seed(seed + 1000)
        self.centres = torch.randn(count, dim, generator=self.generator)
        self.weights = 1 / torch.arange(1, count + 1)

    def draw(self, count: int) -> Tensor:
        """Data, float `(1, dim, count)`: one sample on a grid of places."""
        chosen = self.weights.multinomial(count, replacement=True, generator=self.generator)
        noise = torch.randn(count, self.centres.shape[1], generator=self.generator)
        return (self.centres[chosen] + CLUSTER_SPREAD * noise).t().unsqueeze(0)


@torch.no_grad()
def put_in_corner(quantizer: Quantizer, seed: int) -> None:
    """Moves all entries to one place far from the data; nothing where there is no table."""
    if not hasattr(quantizer, "codebook"):
        return
    if hasattr(quantizer, "projection_weight"):  # the entries are the codebook through a linear map
        scale = CORNER_SPREAD / quantizer.codebook.std()
        quantizer.projection_weight.copy_(scale * torch.eye(quantizer.codebook_dim))
        quantizer.projection_bias.fill_(CORNER)
        return
    noise = torch.randn(quantizer.codebook.shape, generator=torch.Generator().manual_seed(seed))
    quantizer.codebook.copy_(CORNER + CORNER_SPREAD * noise)
    if hasattr(quantizer, "sums"):  # of the latents that made the entries
        quantizer.sums.copy_(quantizer.codebook * quantizer.counts.unsqueeze(1))


class Model(nn.Module):
    """A quantizer and what its latents come from.

    Args:
        quantizer: The quantizer.
        dim: Channels of the data.
        latents: As in `Method`.
    """

    def __init__(self, quantizer: Quantizer, dim: int, latents: Literal["data", "logits", "network"]):
        super().__init__()
        self.quantizer = quantizer
        self.encoder = self.decoder = nn.Identity()
        if latents == "logits":
            self.encoder = nn.Conv1d(dim, quantizer.latent_dim, 1)
        elif latents == "network":
            self.encoder = _perceptron(dim, quantizer.latent_dim)
            self.decoder = _perceptron(quantizer.quantized_dim, dim)
        self.reconstructs = latents != "data" or quantizer.learns_through_quantized

    def loss(self, x: Tensor) -> Tensor:
        """The quantizer's losses, and the reconstruction's where something learns through it."""
        out = self.quantizer(self.encoder(x))
        return out.loss + F.mse_loss(self.decoder(out.quantized), x) if self.reconstructs else out.loss

    @torch.no_grad()
    def measure(self, x: Tensor) -> dict[str, float]:
        """The use of the entries, and the squared error over the variance of the data."""
        out = self.quantizer.evaluate(self.encoder(x))
        usage = CodebookUsage(self.quantizer.codebook_size)
        usage.update(out.tokens)
        error = F.mse_loss(self.decoder(out.quantized), x)
        variance = (x - x.mean(2, keepdim=True)).square().mean()
        return {**usage.compute(), "distortion": float(error / variance)}


def _perceptron(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv1d(inputs, HIDDEN, 1), nn.ReLU(), nn.Conv1d(HIDDEN, outputs, 1))


def train(model: Model, batches: Iterator[Tensor], learning_rate: float | None) -> Iterator[int]:
    """Trains as vistok's loop does, and yields the number of steps taken: at first 0."""
    optimizer = None if learning_rate is None else torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.quantizer.set_step(0)
    yield 0
    for step, x in enumerate(batches, start=1):
        loss = model.loss(x)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.quantizer.set_step(step)
        yield step


def run(name: str, sizes: Sizes, seed: int = 0) -> dict[str, object]:
    """Trains a method on the problem and measures it on data it never saw: a row of the table.

    Args:
        name: Of `METHODS`.
        sizes: How large the problem is.
        seed: Of everything.
    """
    method = METHODS[name]
    torch.manual_seed(seed)
    data = Clusters(CLUSTERS_PER_ENTRY * sizes.codebook_size, sizes.dim, seed)
    model = Model(method.build(sizes), sizes.dim, method.latents)
    put_in_corner(model.quantizer, seed)
    begin = time.perf_counter()
    for _ in train(model, (data.draw(sizes.batch_size) for _ in range(sizes.steps)), method.learning_rate):
        pass
    seconds = time.perf_counter() - begin
    return {
        "method": name,
        "latents": method.latents,
        "learning_rate": method.learning_rate,
        "seed": seed,
        **asdict(sizes),
        "entries": model.quantizer.codebook_size,
        **model.eval().measure(data.draw(TEST_DATA)),
        "seconds": seconds,
    }


def failure(row: dict[str, object]) -> str | None:
    """What a row should be and is not, as a line; None where it is as it must be."""
    bounds, usage = METHODS[row["method"]].usage, row["codebook_usage"]
    if bounds is None or bounds[0] <= usage <= bounds[1]:
        return None
    return f"{row['method']} uses {usage:.1%} of its entries, not {bounds[0]:.0%} to {bounds[1]:.0%}"


COLUMNS = {
    "method": "{method}",
    "latents": "{latents}",
    "learning rate": "{learning_rate}",
    "entries": "{entries}",
    "usage": "{codebook_usage:.1%}",
    "perplexity": "{codebook_perplexity:.1f}",
    "dead": "{dead_entries}",
    "distortion": "{distortion:.3f}",
    "seconds": "{seconds:.1f}",
}


def draw_toy(path: Path, points: int = 100, entries: int = 30, steps: int = 400, every: int = 5) -> None:
    """Draws plain VQ beside OptVQ, learning the same points in the plane from the same entries, as a GIF.

    Args:
        path: The file to write.
        points: Number of points.
        entries: Number of entries.
        steps: Optimizer steps.
        every: Steps from a frame to the next.
    """
    generator = torch.Generator().manual_seed(4)
    offset = torch.tensor([1.0, 1.5])
    x = (0.7 * torch.randn(points, 2, generator=generator) + offset).t().unsqueeze(0)
    start = 0.8 * torch.randn(entries, 2, generator=generator)
    panels = []
    for name, quantizer, colour in (
        ("VQ", VQ(entries, 2), RED),
        ("OptVQ", OptVQ(entries, 2, projection=False), GREEN),
    ):
        with torch.no_grad():
            quantizer.codebook.copy_(start)
        model = Model(quantizer, 2, "data")
        taken = train(model, (x for _ in range(steps)), learning_rate=0.02)
        panels.append([panel(name, step, quantizer, x, colour) for step in taken if step % every == 0])
    save_animation(path, panels)


def main() -> None:
    """Prints the table, or draws the toy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codebook_size", type=int, default=256, choices=IMPLICIT, help="number of entries")
    parser.add_argument("--dim", type=int, default=8, help="channels of the data and the entries")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--batch_size", type=int, default=1024, help="vectors of data in a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--gif", type=Path, help="draw plain VQ beside OptVQ in the plane, and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.gif:
        draw_toy(arguments.gif)
        return
    sizes = Sizes(arguments.codebook_size, arguments.dim, arguments.steps, arguments.batch_size)
    print(
        f"{CLUSTERS_PER_ENTRY * sizes.codebook_size} clusters in {sizes.dim} channels, {sizes.steps} steps "
        f"of {sizes.batch_size}, seed {arguments.seed}; measured on {TEST_DATA} more; torch "
        f"{torch.__version__}, 1 thread, load average {os.getloadavg()[0]:.1f}\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows = []
    for name in arguments.methods:
        rows.append(run(name, sizes, arguments.seed))
        shown = {key: "-" if value is None else value for key, value in rows[-1].items()}
        print(f"| {' | '.join(text.format(**shown) for text in COLUMNS.values())} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    failures = [line for line in map(failure, rows) if line is not None]
    if failures:
        sys.exit("\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
