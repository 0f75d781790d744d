"""vistok's quantizers beside vector-quantize-pytorch's: the same maths, time and memory.

    pip install vector-quantize-pytorch==1.32.0
    python scripts/benchmarks/quantizers.py [--case fsq] [--device cuda] [--rounds 15] [--json rows.json]

One process, one thread, candidates interleaved. Before anything is timed, tokens, quantized vectors, losses
and gradients must be equal; a case that is not prints no time. Ratios are of medians; a peak is the extra
memory of one step, its gradients included.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Case, peak_bytes, report
from torch import Tensor
from torch.nn import functional as F

from vistok.quantizers import FSQ, VQ

PEER = "vector-quantize-pytorch"
HAS_PEER = importlib.util.find_spec("vector_quantize_pytorch") is not None


def _latents(channels: int, batch: int, side: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, weights = (torch.randn(batch, channels, side, side, generator=generator) for _ in range(2))
    return (1.5 * latents).to(device).requires_grad_(), weights.to(device)


def _difference(a: Tensor, b: Tensor) -> float:
    return (a.detach().double() - b.detach().double()).abs().max().item()


def _differing(a: Tensor, b: Tensor) -> float:
    return float((a.long() != b.long()).sum())


def _backward(latents: Tensor, weights: Tensor, quantized: Tensor, loss: Tensor | None = None) -> Tensor:
    latents.grad = None
    if loss is None:
        quantized.backward(weights)
    else:
        torch.autograd.backward([quantized, loss], [weights, None])
    return latents.grad


def _train_step(module, latents: Tensor, weights: Tensor, run: Callable) -> Callable[[], None]:
    def step() -> None:
        module.zero_grad()
        quantized, loss = run(module)
        _backward(latents, weights, quantized, loss)
        # Gradients count as the step's memory, not as what was there before.
        latents.grad = None
        module.zero_grad()

    return step


def fsq(what: str, levels: list[int], device: str) -> Case:
    """FSQ on 32,768 tokens: forward, forward and backward, encode, lookup or index."""
    latents, weights = _latents(len(levels), 32, 32, device)
    ours = FSQ(levels).to(device)
    still = latents.detach()
    out = ours(still)
    case = Case(
        {
            "forward": {"ours": torch.no_grad()(lambda: ours(still))},
            "train": {"ours": _train_step(ours, latents, weights, lambda m: (m(latents).quantized, None))},
            "encode": {"ours": lambda: ours.encode(still)},
            "lookup": {"ours": lambda: ours.lookup(out.tokens)},
            "index": {"ours": lambda: ours.index(out.quantized)},
        }[what],
        floor=("clone", still.clone),
    )
    if what == "train":
        case.floor = ("latents * 1, forward and backward", lambda: _backward(latents, weights, latents * 1.0))
    if not HAS_PEER:
        return case
    import vector_quantize_pytorch

    peer = vector_quantize_pytorch.FSQ(levels).to(device)
    forward = torch.no_grad()(lambda: peer(still))
    quantized, tokens = forward()
    case.candidates[PEER] = {
        "forward": forward,
        "train": _train_step(peer, latents, weights, lambda m: (m(latents)[0], None)),
        "encode": forward,  # it has no shorter way to tokens
        "lookup": torch.no_grad()(lambda: peer.indices_to_codes(tokens)),
        "index": torch.no_grad()(lambda: peer.codes_to_indices(quantized.movedim(1, -1))),
    }[what]
    case.gate = {
        "tokens of forward": (_differing(out.tokens, tokens), 0),
        "tokens of encode": (_differing(ours.encode(still), tokens), 0),
        "quantized": (_difference(out.quantized, quantized), 1e-6),
        "looked up": (_difference(ours.lookup(out.tokens), quantized), 1e-6),
        "indexed": (_differing(ours.index(quantized), tokens), 0),
        "gradient": (
            _difference(
                _backward(latents, weights, ours(latents).quantized),
                _backward(latents, weights, peer(latents)[0]),
            ),
            1e-5,
        ),
    }
    return case


def vq(entries: int, channels: int, batch: int, side: int, normalize: bool, device: str) -> Case:
    """A training step of VQ: assignment, losses and gradients."""
    latents, weights = _latents(channels, batch, side, device)
    table = torch.randn(entries, channels, generator=torch.Generator().manual_seed(1)).to(device)
    ours = VQ(entries, channels, normalize=normalize).to(device)
    with torch.no_grad():
        ours.codebook.copy_(F.normalize(table, dim=1) if normalize else table)

    def run(module) -> tuple[Tensor, Tensor]:
        out = module(latents)
        return out.quantized, out.loss

    rows = latents.detach().movedim(1, -1).reshape(-1, channels)
    few = rows[: max(1, len(rows) // 16)]
    case = Case(
        {"ours": _train_step(ours, latents, weights, run)},
        floor=("matrix product, 1/16 of the rows", lambda: few @ table.t()),
    )
    if not HAS_PEER:
        return case
    # Its learned codebook refuses normalization: there its table is held still, which is less work than ours.
    peer = _peer_vq(table, normalize, {"freeze_codebook": True} if normalize else {}).to(device)

    def run_peer(module) -> tuple[Tensor, Tensor]:
        quantized, _, loss = module(latents)
        return quantized, loss.sum()

    case.candidates[PEER] = _train_step(peer, latents, weights, run_peer)
    if normalize:  # its own training step, which moves the table by an average of the latents
        averaging = _peer_vq(table, normalize, {}).to(device)
        case.candidates[f"{PEER}, EMA"] = _train_step(averaging, latents, weights, run_peer)
    case.gate = _vq_gate(ours, peer, latents, weights, normalize)
    return case


def _peer_vq(table: Tensor, normalize: bool, extra: dict):
    from vector_quantize_pytorch import VectorQuantize

    entries, channels = table.shape
    peer = VectorQuantize(
        channels,
        entries,
        accept_image_fmap=True,
        rotation_trick=False,
        commitment_weight=0.25 if normalize else 1.0,
        use_cosine_sim=normalize,
        ema_update=normalize,
        learnable_codebook=not normalize,
        **extra,
    )
    with torch.no_grad():
        peer._codebook.embed.copy_((F.normalize(table, dim=1) if normalize else table)[None])
    return peer.train()


def _vq_gate(ours: VQ, peer, latents: Tensor, weights: Tensor, normalize: bool) -> dict:
    ours.zero_grad()
    out = ours(latents)
    # Where it learns its codebook, its one loss is the squared error with a gradient to both sides.
    ours_loss = (
        out.loss if normalize else out.losses["codebook"] + out.losses["commitment"] / ours.commitment_weight
    )
    gradient = _backward(latents, weights, out.quantized, ours_loss).clone()
    quantized, tokens, loss = peer(latents)
    peer_gradient = _backward(latents, weights, quantized, loss.sum()).clone()
    gate = {
        "tokens": (_differing(out.tokens, tokens), 0),
        "quantized": (_difference(out.quantized, quantized), 1e-5),
        "gradient of the latents": (_difference(gradient, peer_gradient), 1e-5),
    }
    if normalize:
        gate["commitment loss"] = (_difference(out.losses["commitment"], loss.sum()), 1e-5)
    else:
        gate["loss"] = (_difference(out.losses["codebook"], loss.sum()), 1e-4)
        codebook_gradient = peer._codebook.embed.grad[0]
        gate["gradient of the codebook"] = (_difference(ours.codebook.grad, codebook_gradient), 1e-5)
    return gate


def _goal(build: Callable[[str], Case], time: float | None, memory: float | None) -> Callable[[str], Case]:
    def with_goal(device: str) -> Case:
        case = build(device)
        case.time_goal, case.memory_goal = time, memory
        return case

    return with_goal


SMALL, LARGE = [8, 5, 5, 5], [8, 8, 8, 5, 5, 5]
CASES = {
    "fsq 8555 forward": _goal(lambda d: fsq("forward", SMALL, d), 0.25, None),
    "fsq 8555 train": _goal(lambda d: fsq("train", SMALL, d), 0.30, 0.5),
    "fsq 8555 encode": _goal(lambda d: fsq("encode", SMALL, d), 0.20, None),
    "fsq 8555 lookup": _goal(lambda d: fsq("lookup", SMALL, d), None, None),
    "fsq 8555 index": _goal(lambda d: fsq("index", SMALL, d), None, None),
    "fsq 888555 forward": _goal(lambda d: fsq("forward", LARGE, d), None, None),
    "fsq 888555 train": _goal(lambda d: fsq("train", LARGE, d), None, math.inf),
    "fsq 888555 encode": _goal(lambda d: fsq("encode", LARGE, d), None, None),
    "vq 16384x8 normalized train, 8192 tokens": _goal(lambda d: vq(16384, 8, 32, 16, True, d), 0.10, 30),
    "vq 1024x256 train, 8192 tokens": _goal(lambda d: vq(1024, 256, 32, 16, False, d), None, math.inf),
    "vq 16384x256 train, 2048 tokens": _goal(lambda d: vq(16384, 256, 8, 16, False, d), None, math.inf),
    "vq 65536x8 normalized train, 2048 tokens": _goal(lambda d: vq(65536, 8, 8, 16, True, d), None, math.inf),
}


def main() -> None:
    """Runs the cases that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15, help="samples of each candidate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "CANDIDATE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    if arguments.peak:
        case, candidate = arguments.peak
        print(json.dumps(peak_bytes(CASES[case](arguments.device).candidates[candidate], arguments.device)))
        return
    chosen = {name: build for name, build in CASES.items() if arguments.case in name}
    if not chosen:
        parser.error(f"no case contains {arguments.case!r}; cases: {', '.join(CASES)}")
    peer = importlib.metadata.version(PEER) if HAS_PEER else "not installed"
    print(f"torch {torch.__version__}, {PEER} {peer}, {arguments.device}, {arguments.threads} thread(s)")
    print(f"{arguments.rounds} rounds, load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    rows = []
    for name, build in chosen.items():
        case = build(arguments.device)
        rows += report(name, case, __file__, arguments.rounds, arguments.device, PEER)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
