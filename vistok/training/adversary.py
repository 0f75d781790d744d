"""The other player of adversarial training: a discriminator with its optimizer, schedule and statistics.

Image-to-Image Translation with Conditional Adversarial Networks. Isola, Zhu, Zhou, Efros. CVPR 2017.
arXiv:1611.07004; for tokenizers: Taming Transformers for High-Resolution Image Synthesis. Esser, Rombach,
Ommer. CVPR 2021. arXiv:2012.09841.
"""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .adversarial import LeCam, adaptive_weight, discriminator_loss, generator_loss, r1_penalty
from .config import TrainingConfig
from .discriminators import PatchDiscriminator
from .optimization import build_optimizer, build_schedule, set_schedule


class Adversary:
    """Judges pictures, learns to, and tells the tokenizer how to pass.

    Neither player trains the other: the tokenizer's loss meets a discriminator whose weights need no
    gradient, the discriminator's loss meets pictures cut off from the tokenizer.

    Args:
        config: The settings of the run.
        accelerator: What prepares the discriminator and its optimizer.
        learning_rate: The peak rate of its optimizer.
        steps: Optimizer steps of the run.

    Attributes:
        model: The discriminator as the accelerator prepared it.
        optimizer: Its optimizer.
        adaptive_weight: The last one, of this process's last micro-batch.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, learning_rate: float, steps: int):
        self.config = config
        self.accelerator = accelerator
        discriminator: nn.Module = PatchDiscriminator(
            config.discriminator_channels, config.discriminator_layers, config.discriminator_normalization
        )
        if config.resolution < discriminator.minimum_size:
            raise ValueError(
                f"A discriminator of {config.discriminator_layers} layers takes pictures of at least "
                f"{discriminator.minimum_size} pixels, got {config.resolution}: set --discriminator_layers "
                "lower, or train on larger pictures"
            )
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            if config.r1_weight and config.discriminator_normalization == "batch":
                raise ValueError(
                    "r1_weight needs --discriminator_normalization group on several GPUs: batch "
                    "normalization over them cannot be differentiated twice"
                )
            discriminator = nn.SyncBatchNorm.convert_sync_batchnorm(discriminator)
        optimizer = build_optimizer(discriminator, config, learning_rate)
        self.schedule = build_schedule(optimizer, config, steps, start=config.discriminator_start_step)
        self.model, self.optimizer = accelerator.prepare(discriminator.train(), optimizer)
        # Without the autocast that `prepare` puts around its forward, because R1 needs float32.
        self.discriminator = accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.lecam = LeCam().to(accelerator.device)
        self.adaptive_weight: Tensor | float = 1.0

    def trains_generator(self, step: int) -> bool:
        """Whether the tokenizer is trained by the adversarial loss after so many steps."""
        return step >= self.config.adversarial_start_step

    def learns(self, step: int) -> bool:
        """Whether the discriminator is trained after so many steps."""
        return step >= self.config.discriminator_start_step

    def generator_term(self, reconstruction: Tensor, distance: Tensor, last_layer: Tensor) -> Tensor:
        """The tokenizer's weighted adversarial loss, a scalar.

        Args:
            reconstruction: float `(B, 3, H, W)` with the gradient of the tokenizer.
            distance: The sum of the weighted distances of the reconstruction from the pictures, a scalar.
            last_layer: The weight of the decoder's last layer.
        """
        self.discriminator.requires_grad_(False)
        with self.accelerator.autocast():
            logits = self.discriminator(reconstruction)
        loss = generator_loss(self.config.adversarial_loss, logits)
        if self.config.adaptive_adversarial_weight:
            scaler = self.accelerator.scaler
            scale = 1.0 if scaler is None else scaler.scale(loss.new_ones(()))
            self.adaptive_weight = adaptive_weight(distance, loss, last_layer, scale)
            loss = loss * self.adaptive_weight
        return self.config.adversarial_weight * loss

    def discriminator_terms(self, pixel_values: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """The weighted terms that the discriminator minimizes, by name.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1].
            reconstruction: The same, of the tokenizer.
        """
        self.discriminator.requires_grad_(True)
        with self.accelerator.autocast():
            real, fake = self.model(pixel_values), self.model(reconstruction.detach())
        terms = {"adversarial": discriminator_loss(self.config.adversarial_loss, real, fake)}
        if self.config.lecam_weight:
            terms["lecam"] = self.config.lecam_weight * self.lecam(real, fake)
            self.lecam.gather_statistics(real, fake)
        if self.config.r1_weight:
            terms["r1"] = self.config.r1_weight * r1_penalty(self.discriminator, pixel_values)
        return terms

    def step_taken(self, learned: bool) -> None:
        """Follows an optimizer step.

        Args:
            learned: Whether the discriminator was among those that took it.
        """
        if learned:
            self.schedule.step()
        self.lecam.apply_statistics()

    def step_skipped(self) -> None:
        """Forgets what a skipped step gathered."""
        self.lecam.discard_statistics()

    def state(self) -> dict[str, Any]:
        """What the accelerator does not save, plain values."""
        return {name: value.item() for name, value in self.lecam.state_dict().items()}

    def resume(self, state: dict[str, Any], step: int) -> None:
        """Goes on from the `state()` after so many steps."""
        self.lecam.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
        set_schedule(self.schedule, max(step - self.config.discriminator_start_step, 0))
