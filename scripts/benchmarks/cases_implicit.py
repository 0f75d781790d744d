"""Methods without a table: FSQ and LFQ."""

import torch
from common import HAS_PEER, PEER, backward, difference, differing, make_latents, train_step
from harness import Case
from torch import Tensor

from vistok.quantizers import FSQ, LFQ
from vistok.quantizers.bit_entropy import bit_entropies


def fsq(what: str, levels: list[int], device: str) -> Case:
    """FSQ on 32,768 tokens: forward, forward and backward, encode, lookup or index."""
    latents, weights = make_latents(len(levels), 32, 32, device)
    ours = FSQ(levels).to(device)
    still = latents.detach()
    out = ours(still)
    case = Case(
        {
            "forward": {"ours": torch.no_grad()(lambda: ours(still))},
            "train": {"ours": train_step(ours, latents, weights, lambda m: (m(latents).quantized, None))},
            "encode": {"ours": lambda: ours.encode(still)},
            "lookup": {"ours": lambda: ours.lookup(out.tokens)},
            "index": {"ours": lambda: ours.index(out.quantized)},
        }[what],
        floor=("clone", still.clone),
    )
    if what == "train":
        case.floor = ("latents * 1, forward and backward", lambda: backward(latents, weights, latents * 1.0))
    if not HAS_PEER:
        return case
    import vector_quantize_pytorch

    peer = vector_quantize_pytorch.FSQ(levels).to(device)
    forward = torch.no_grad()(lambda: peer(still))
    quantized, tokens = forward()
    case.candidates[PEER] = {
        "forward": forward,
        "train": train_step(peer, latents, weights, lambda m: (m(latents)[0], None)),
        "encode": forward,  # it has no shorter way to tokens
        "lookup": torch.no_grad()(lambda: peer.indices_to_codes(tokens)),
        "index": torch.no_grad()(lambda: peer.codes_to_indices(quantized.movedim(1, -1))),
    }[what]
    case.gate = {
        "tokens of forward": (differing(out.tokens, tokens), 0),
        "tokens of encode": (differing(ours.encode(still), tokens), 0),
        "quantized": (difference(out.quantized, quantized), 1e-6),
        "looked up": (difference(ours.lookup(out.tokens), quantized), 1e-6),
        "indexed": (differing(ours.index(quantized), tokens), 0),
        "gradient": (
            difference(
                backward(latents, weights, ours(latents).quantized),
                backward(latents, weights, peer(latents)[0]),
            ),
            1e-5,
        ),
    }
    return case


def lfq(bits: int, batch: int, side: int, device: str) -> Case:
    """A training step of LFQ with its entropy: the peer holds a probability for each latent and entry."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, bits, side, side)
    latents, weights = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    latents = latents.mul_(0.05).requires_grad_()  # near the temperature, where the entropy has a gradient
    ours = LFQ(bits, commitment_weight=0.25, entropy_temperature=0.01)  # the peer's

    def run(module) -> tuple[Tensor, Tensor]:
        out = module(latents)
        return out.quantized, out.loss

    case = Case({"ours": train_step(ours, latents, weights, run)})
    out = ours(latents)
    rows = latents.detach().movedim(1, -1).reshape(-1, bits).double()
    few = rows[: max(1, 2**24 // 2**bits)]
    sample, codebook = (x.item() for x in bit_entropies(4 * few.float() / ours.entropy_temperature))
    exact_sample, exact_codebook = _exact_entropies(few, ours.entropy_temperature)
    case.gate = {
        "sample entropy, of float64": (abs(sample - exact_sample), 1e-4),
        "codebook entropy, of float64": (abs(codebook - exact_codebook), 1e-4),
    }
    if not HAS_PEER or len(rows) * 2**bits > 2**28:  # it would need many gigabytes
        return case
    import vector_quantize_pytorch

    peer = vector_quantize_pytorch.LFQ(
        dim=bits, codebook_size=2**bits, entropy_loss_weight=0.1, commitment_loss_weight=0.25
    )
    peer = peer.to(device).train()

    def run_peer(module) -> tuple[Tensor, Tensor]:
        quantized, _, loss = module(latents)
        return quantized, loss

    case.candidates[PEER] = train_step(peer, latents, weights, run_peer)
    quantized, tokens, loss = peer(latents)
    case.gate |= {
        "tokens": (differing(out.tokens, tokens), 0),
        "quantized": (difference(out.quantized, quantized), 1e-6),
        # It counts a probability below 1e-5 as 1e-5: the more entries, the further its entropy is off.
        "loss": (difference(out.loss, loss), 1e-4 if bits <= 10 else 0.5),
    }
    return case


def _exact_entropies(rows: Tensor, temperature: float) -> tuple[float, float]:
    bits = rows.shape[1]
    entries = (torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1
    logits = rows @ (2 * entries.double() - 1).t().to(rows.device) * (2 / temperature)
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    mean = p.mean(0)
    return -(p * log_p).sum(1).mean().item(), -torch.special.xlogy(mean, mean).sum().item()
