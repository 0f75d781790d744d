"""Methods with a table: VQ, EMAVQ and SimVQ."""

import torch
from common import HAS_PEER, PEER, backward, difference, differing, make_latents, train_step
from harness import Case
from torch import Tensor
from torch.nn import functional as F

from vistok.quantizers import EMAVQ, VQ, SimVQ


def vq(entries: int, channels: int, batch: int, side: int, normalize: bool, device: str) -> Case:
    """A training step of VQ: assignment, losses and gradients."""
    latents, weights = make_latents(channels, batch, side, device)
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
        {"ours": train_step(ours, latents, weights, run)},
        floor=("matrix product, 1/16 of the rows", lambda: few @ table.t()),
    )
    if not HAS_PEER:
        return case
    # Its learned codebook refuses normalization: there its table is held still, which is less work than ours.
    peer = _peer_vq(table, normalize, {"freeze_codebook": True} if normalize else {}).to(device)

    def run_peer(module) -> tuple[Tensor, Tensor]:
        quantized, _, loss = module(latents)
        return quantized, loss.sum()

    case.candidates[PEER] = train_step(peer, latents, weights, run_peer)
    if normalize:  # its own training step, which moves the table by an average of the latents
        averaging = _peer_vq(table, normalize, {}).to(device)
        case.candidates[f"{PEER}, EMA"] = train_step(averaging, latents, weights, run_peer)
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
    gradient = backward(latents, weights, out.quantized, ours_loss).clone()
    quantized, tokens, loss = peer(latents)
    peer_gradient = backward(latents, weights, quantized, loss.sum()).clone()
    gate = {
        "tokens": (differing(out.tokens, tokens), 0),
        "quantized": (difference(out.quantized, quantized), 1e-5),
        "gradient of the latents": (difference(gradient, peer_gradient), 1e-5),
    }
    if normalize:
        gate["commitment loss"] = (difference(out.losses["commitment"], loss.sum()), 1e-5)
    else:
        gate["loss"] = (difference(out.losses["codebook"], loss.sum()), 1e-4)
        codebook_gradient = peer._codebook.embed.grad[0]
        gate["gradient of the codebook"] = (difference(ours.codebook.grad, codebook_gradient), 1e-5)
    return gate


def ema(entries: int, channels: int, batch: int, side: int, device: str) -> Case:
    """A training step of EMAVQ: assignment, commitment, and the update of the codebook."""
    latents, weights = make_latents(channels, batch, side, device)
    table = torch.randn(entries, channels, generator=torch.Generator().manual_seed(1)).to(device)
    ours = EMAVQ(entries, channels, revival_threshold=0.0).to(device)
    _put(ours, table)

    def run(module) -> tuple[Tensor, Tensor]:
        out = module(latents)
        return out.quantized, out.loss

    case = Case({"ours": train_step(ours, latents, weights, run)})
    if not HAS_PEER:
        return case
    from vector_quantize_pytorch import VectorQuantize

    peer = VectorQuantize(
        channels, entries, decay=0.99, accept_image_fmap=True, rotation_trick=False, commitment_weight=0.25
    )
    peer = peer.to(device).train()
    with torch.no_grad():
        peer._codebook.embed.copy_(table[None])
        peer._codebook.embed_avg.copy_(table[None])
        peer._codebook.cluster_size.fill_(1)

    def run_peer(module) -> tuple[Tensor, Tensor]:
        quantized, _, loss = module(latents)
        return quantized, loss.sum()

    case.candidates[PEER] = train_step(peer, latents, weights, run_peer)
    out, (quantized, tokens, loss) = ours(latents), peer(latents)
    chosen = tokens.flatten().unique()
    case.gate = {
        "tokens": (differing(out.tokens, tokens), 0),
        "quantized": (difference(out.quantized, quantized), 1e-5),
        "loss": (difference(out.loss, loss.sum()), 1e-5),
        "updated entries": (difference(ours.codebook[chosen], peer._codebook.embed[0, chosen]), 1e-4),
    }
    return case


def ema_update(entries: int, channels: int, latents: int, device: str) -> Case:
    """The update of EMAVQ alone, beside the one-hot matrix product by which others do it."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(latents, channels, generator=draw).to(device)
    tokens = torch.randint(entries, (latents,), generator=draw).to(device)
    table = torch.randn(entries, channels, generator=draw).to(device)
    ours = EMAVQ(entries, channels, revival_threshold=0.0).to(device)
    _put(ours, table)
    state = {"codebook": table.clone(), "counts": torch.ones_like(ours.counts), "sums": table.clone()}

    def update() -> None:
        ours._gather(rows, tokens, None)
        ours._update(0)

    @torch.no_grad()
    def one_hot() -> None:
        chosen = F.one_hot(tokens, entries).to(rows.dtype)
        state["counts"].lerp_(chosen.sum(0), 1 - ours.decay)
        state["sums"].lerp_(chosen.t() @ rows, 1 - ours.decay)
        total = state["counts"].sum()
        smoothed = (state["counts"] + ours.epsilon) / (total + entries * ours.epsilon) * total
        state["codebook"] = state["sums"] / smoothed.unsqueeze(1)

    case = Case({"ours": update, "one-hot formula": one_hot})
    update()
    one_hot()
    case.gate = {
        "counts": (difference(ours.counts, state["counts"]), 1e-6),
        "entries": (difference(ours.codebook, state["codebook"]), 1e-4),
    }
    return case


def _put(quantizer: EMAVQ, table: Tensor) -> None:
    quantizer.codebook.copy_(table)
    quantizer.sums.copy_(table)
    quantizer.counts.fill_(1)


def simvq(entries: int, channels: int, batch: int, side: int, device: str) -> Case:
    """A training step of SimVQ."""
    latents, weights = make_latents(channels, batch, side, device)
    torch.manual_seed(0)
    ours = SimVQ(entries, channels, codebook_weight=1.0, commitment_weight=0.25).to(device)

    def run(module) -> tuple[Tensor, Tensor]:
        out = module(latents)
        return out.quantized, out.loss

    case = Case({"ours": train_step(ours, latents, weights, run)})
    if not HAS_PEER:
        return case
    import vector_quantize_pytorch

    peer = vector_quantize_pytorch.SimVQ(
        channels,
        entries,
        codebook_transform=torch.nn.Linear(channels, channels),
        channel_first=True,
        rotation_trick=False,
    ).to(device)
    with torch.no_grad():
        peer.frozen_codebook.copy_(ours.codebook)
        peer.code_transform.weight.copy_(ours.projection_weight)
        peer.code_transform.bias.copy_(ours.projection_bias)

    def run_peer(module) -> tuple[Tensor, Tensor]:
        quantized, _, loss = module(latents)
        return quantized, loss

    case.candidates[PEER] = train_step(peer, latents, weights, run_peer)
    (quantized, loss), (peer_quantized, peer_loss) = run(ours), run_peer(peer)
    gradient = backward(latents, weights, quantized, loss).clone()
    peer_gradient = backward(latents, weights, peer_quantized, peer_loss).clone()
    map_gradient = ours.projection_weight.grad
    case.gate = {
        "tokens": (differing(ours(latents).tokens, peer(latents)[1]), 0),
        "quantized": (difference(quantized, peer_quantized), 1e-5),
        "loss": (difference(loss, peer_loss), 1e-5),
        "gradient of the latents": (difference(gradient, peer_gradient), 1e-5),
        "gradient of the map": (difference(map_gradient, peer.code_transform.weight.grad), 1e-5),
    }
    return case
