"""Optimizers, their schedules, and the step they take: with finite gradients only, all of them or none."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from .config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig, learning_rate: float) -> Optimizer:
    """AdamW over what is to be trained.

    Weight decay takes the weights of two and more dimensions: neither biases and norms, which it would only
    shift, nor what a quantizer keeps, whose entries it would draw together.

    Args:
        model: The model; parameters that need no gradient are left out.
        config: The settings.
        learning_rate: The peak rate.

    Raises:
        ValueError: There is nothing to train.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise ValueError("Every weight is frozen: nothing to train")
    decayed, others = [], []
    for name, parameter in trained:
        of_network = parameter.ndim > 1 and not name.startswith("quantizer.")
        (decayed if of_network else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.adam_weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )


def build_schedule(optimizer: Optimizer, config: TrainingConfig, steps: int, start: int = 0) -> LRScheduler:
    """The schedule of a learning rate. It is stepped once an optimizer step, and never prepared.

    accelerate would step a prepared one once for each process.

    Args:
        optimizer: The optimizer, of torch's own class.
        config: The settings.
        steps: Optimizer steps of the run.
        start: The step from which this optimizer is used: its warm-up comes then.
    """
    warmup = min(config.lr_warmup_steps, max(steps - start, 0))
    return get_scheduler(config.lr_scheduler, optimizer, warmup, max(steps - start, 1))


def set_schedule(schedule: LRScheduler, step: int) -> None:
    """Brings a schedule to a step, and its optimizer's rates with it."""
    schedule.last_epoch = step
    for group, base, scale in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * scale(step)
    schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]


def take_step(
    accelerator: Accelerator, optimizers: list[Optimizer], loss: Tensor, max_grad_norm: float
) -> list[Tensor] | None:
    """Clips the gradients and takes the step of every optimizer, or of none where anything is not finite.

    accelerate's own `optimizer.step` updates fp16's scale after each optimizer, which would divide the
    gradients of the second one by the scale twice.

    Args:
        accelerator: What prepared the optimizers.
        optimizers: Those to step, with their gradients accumulated.
        loss: The sum of this rank's losses, a scalar.
        max_grad_norm: Gradients are clipped to this norm, each optimizer's by itself.

    Returns:
        The norm of each optimizer's gradient before it was clipped; None where the step was skipped.
    """
    plain = [getattr(optimizer, "optimizer", optimizer) for optimizer in optimizers]
    scaler = accelerator.scaler
    norms = []
    for optimizer in plain:
        if scaler is not None:
            scaler.unscale_(optimizer)
        gradients = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(nn.utils.clip_grad_norm_(gradients, max_grad_norm))
    finite = torch.stack([*norms, loss.detach()]).isfinite().all()
    if accelerator.num_processes > 1:  # gradients are equal on all ranks, losses are not
        finite = accelerator.reduce(finite.to(torch.float32), "mean") == 1
    taken = bool(finite)
    for optimizer in plain:
        if taken and scaler is not None:
            scaler.step(optimizer)
        elif taken:
            optimizer.step()
        optimizer.zero_grad()
    if scaler is not None:
        scaler.update()  # which lowers the scale where a gradient was not finite
    return norms if taken else None
