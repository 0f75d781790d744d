"""The training loop: batches in, a trained tokenizer out. One optimizer step is `Trainer.training_step`."""

import logging
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm
from transformers import get_scheduler

from ..data import PictureStream, PictureTransform, check_layout, open_dataset, to_pixel_values
from ..evaluation import evaluate
from ..modeling import TokenizerOutput, VQModelHF
from . import checkpoints
from .config import TrainingConfig
from .journal import Journal
from .objective import Objective
from .results import draw_validation_sheet, make_repository, upload_results, write_results

logger = logging.getLogger(__name__)

_MOST_SKIPPED = 10  # steps in a row whose gradient is not finite: the run does not recover by itself


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what is safe."""


class StepOutput(NamedTuple):
    """What an optimizer step made of its last micro-batch.

    Attributes:
        terms: The weighted terms of the loss by name, scalars.
        out: What the tokenizer made of the pictures.
        pixel_values: float `(B, 3, H, W)` in [-1, 1].
        taken: Whether the weights were updated.
    """

    terms: dict[str, Tensor]
    out: TokenizerOutput
    pixel_values: Tensor
    taken: bool


class Trainer:
    """Trains a tokenizer as a `TrainingConfig` says.

    Building it opens the datasets and the model and resumes where asked to, so that what is wrong with them
    comes before any work.

    Args:
        config: The settings of the run.

    Raises:
        ValueError: A setting, the dataset, the output folder or the checkpoint does not fit.

    Example:
        >>> import tempfile
        >>> from vistok.training import Trainer, TrainingConfig
        >>> network = {"model_type": "vistok_simple_cnn", "hidden_channels": 8}
        >>> tokenizer = {"model_type": "vistok_fsq", "image_size": 32, "network": network}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config = TrainingConfig(
        ...         tokenizer=tokenizer, output_dir=folder, max_train_steps=2, train_batch_size=2,
        ...         max_eval_samples=4, report_to="none")
        ...     Trainer(config).train().token_shape
        (8, 8)
    """

    def __init__(self, config: TrainingConfig):
        self.config = config
        self.output_dir = Path(config.output_dir)
        resume_from = checkpoints.checkpoint_to_resume(self.output_dir, config.resume_from_checkpoint)
        self.training_data = self._open(config.train_split)
        self.validation_data = self._open(config.validation_split)
        if self.validation_data.num_rows == 0:
            raise ValueError(f"{config.dataset_name} has no rows in split {config.validation_split!r}")
        self.journal = Journal(config)  # refuses a tracker that is not installed
        if config.push_to_hub:
            make_repository(config)  # so that a token that is missing is missed now
        set_seed(config.seed)
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
        )
        if self.accelerator.num_processes > 1:
            raise ValueError(
                f"Training takes one process in this version, got {self.accelerator.num_processes}: "
                "launch with --num_processes 1"
            )
        model = VQModelHF(config.tokenizer).to(memory_format=torch.channels_last).train()
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(model)
        self.objective = Objective(config.reconstruction_loss, config.reconstruction_weight)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
            fused=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.tokenizer: VQModelHF = self.accelerator.unwrap_model(self.model)
        # Not prepared: accelerate would step it once for each process.
        self.scheduler = get_scheduler(
            config.lr_scheduler, optimizer, config.lr_warmup_steps, config.max_train_steps
        )
        self.ema = AveragedModel(self.tokenizer, multi_avg_fn=self._average) if config.use_ema else None
        self.stream = PictureStream(
            self.training_data,
            PictureTransform(
                config.resolution,
                crop="center_crop" if config.center_crop else "random_crop",
                random_flip=config.random_flip,
            ),
            batch_size=config.train_batch_size,
            seed=config.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=config.dataloader_num_workers,
            on_error=config.on_unreadable,
        )
        self.step = 0
        self.skipped_in_a_row = 0
        self.unreadable = 0
        if resume_from is not None:
            self._resume(resume_from)

    def train(self) -> VQModelHF:
        """Trains to the last step, evaluates and writes the finished model.

        Returns:
            The trained tokenizer in eval mode: the averaged weights where the run keeps them.

        Raises:
            TrainingError: Ten steps in a row had a gradient that is not finite.
            CheckpointError: A checkpoint or the finished model could not be written.
        """
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"output_dir {self.output_dir} cannot be made a folder: {error.strerror}"
            ) from error
        checkpoints.remove_leftovers(self.output_dir)
        self.tokenizer.quantizer.set_step(self.step)
        try:
            self.journal.open(self.output_dir, self.step)
            self._run()
            return self._finish()
        finally:
            self.journal.close()

    def _run(self) -> None:
        config = self.config
        batches = self.stream.batches(pin_memory=self.accelerator.device.type == "cuda")
        pictures = config.train_batch_size * config.gradient_accumulation_steps
        bar = tqdm(total=config.max_train_steps, initial=self.step, desc="Training", unit="step")
        with closing(batches), bar:
            while self.step < config.max_train_steps:
                step = self.training_step(batches)
                if not step.taken:
                    continue
                last = self.step == config.max_train_steps
                bar.update()
                if last or self.step % config.logging_steps == 0:
                    values = self._measures(step)
                    rate = (bar.format_dict["rate"] or 0.0) * pictures
                    bar.set_postfix_str(
                        f"loss {values['loss']:.4f}, psnr {values['psnr']:.2f} dB, {rate:.0f} images/s"
                    )
                    self.journal.write(self.step, values)
                if last or self.step % config.checkpointing_steps == 0:
                    self._save_checkpoint()
                if self.step % config.validation_steps == 0:
                    self._write_sheet()

    def training_step(self, batches: Iterator[dict[str, Tensor]]) -> StepOutput:
        """One optimizer step: its micro-batches, the clipped gradient, the update.

        A step whose gradient is not finite is skipped and counted.

        Args:
            batches: Endless batches of a `PictureStream`.

        Returns:
            What the step made of its last micro-batch.
        """
        for _ in range(self.config.gradient_accumulation_steps):
            batch = next(batches)
            self.unreadable += int(batch["unreadable"])
            with self.accelerator.accumulate(self.model):
                pixel_values = to_pixel_values(batch["pixels"].to(self.accelerator.device, non_blocking=True))
                out = self.model(pixel_values)
                terms = self.objective(pixel_values, out)
                self.accelerator.backward(sum(terms.values()))
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(
                        self.model.parameters(), self.config.max_grad_norm
                    )
                    taken = bool(norm.isfinite())
                    scaled = self.accelerator.scaler is not None
                    if taken or scaled:  # fp16's scaler skips a bad step by itself, and adapts
                        self.optimizer.step()
                    self.optimizer.zero_grad()
        if taken:
            self.scheduler.step()
            self.step += 1
            self.skipped_in_a_row = 0
            self.tokenizer.quantizer.set_step(self.step)
            if self.ema is not None:
                self.ema.update_parameters(self.tokenizer)
        else:
            self.tokenizer.quantizer.discard_statistics()
            self._count_skipped(terms)
        return StepOutput(terms, out, pixel_values, taken)

    def _count_skipped(self, terms: dict[str, Tensor]) -> None:
        self.skipped_in_a_row += 1
        values = ", ".join(f"{name} {term.item():.4g}" for name, term in terms.items())
        logger.warning("Skipped a step after %d: its gradient is not finite (%s)", self.step, values)
        if self.skipped_in_a_row >= _MOST_SKIPPED:
            last = checkpoints.latest_checkpoint(self.output_dir)
            raise TrainingError(
                f"{_MOST_SKIPPED} steps in a row after step {self.step} had a gradient that is not finite "
                f"({values}). The last good checkpoint is {last or 'none'}; lower --learning_rate or use "
                "--mixed_precision no"
            )

    @torch.no_grad()
    def _measures(self, step: StepOutput) -> dict[str, float]:
        difference = step.out.reconstruction.float().clamp(-1, 1) - step.pixel_values
        error = difference.square().mean().item()
        values = {name: term.item() for name, term in step.terms.items()}
        values["loss"] = math.fsum(values.values())
        values["psnr"] = 10 * math.log10(4 / max(error, 1e-12))
        values["learning_rate"] = self.scheduler.get_last_lr()[0]
        if self.unreadable:
            values["unreadable_pictures"] = self.unreadable
        return values

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        # Early averages follow the weights closely, so that the initial ones do not linger.
        decay = min(self.config.ema_decay, (1 + int(updates)) / (10 + int(updates)))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _averaged_tokenizer(self) -> VQModelHF:
        """The tokenizer to evaluate and save; `AveragedModel` keeps its buffers equal to the live ones."""
        return self.tokenizer if self.ema is None else self.ema.module

    def _open(self, split: str):
        config = self.config
        return open_dataset(
            config.dataset_name,
            split=split,
            config_name=config.dataset_config_name,
            revision=config.dataset_revision,
            image_column=config.image_column,
        )

    def _resume(self, checkpoint: Path) -> None:
        state = checkpoints.load_state(checkpoint)
        self.config.check_resumable(state["config"])
        check_layout(state["layout"], self.stream.layout)
        self.accelerator.load_state(str(checkpoint))
        if self.ema is not None:
            self.ema.load_state_dict(load_file(checkpoint / "ema.safetensors"))
        self.step = state["step"]
        self.unreadable = state["unreadable"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.stream.batches_done = state["batches_done"]
        self.scheduler.last_epoch = self.step
        logger.info("Resumed from %s", checkpoint)

    def _save_checkpoint(self) -> None:
        state = {
            "step": self.step,
            "batches_done": self.stream.batches_done,
            "unreadable": self.unreadable,
            "skipped_in_a_row": self.skipped_in_a_row,
            "layout": self.stream.layout,
            "config": self.config.to_dict(),
        }

        def write(folder: Path) -> None:
            self.accelerator.save_state(str(folder))
            if self.ema is not None:
                save_file(
                    {k: v.contiguous() for k, v in self.ema.state_dict().items()}, folder / "ema.safetensors"
                )

        checkpoints.save_checkpoint(self.output_dir, self.step, write, state)
        checkpoints.keep_newest(self.output_dir, self.config.checkpoints_total_limit)

    def _write_sheet(self) -> None:
        tokenizer = self._averaged_tokenizer()
        was_training = tokenizer.training
        sheet = draw_validation_sheet(
            tokenizer.eval(), self.validation_data, self.config.num_validation_images
        )
        tokenizer.train(was_training)
        name = f"step-{self.step:07d}.png"
        checkpoints.publish(self.output_dir / "sheets", lambda folder: sheet.save(folder / name))

    def _finish(self) -> VQModelHF:
        tokenizer = self._averaged_tokenizer().eval()
        results = evaluate(
            tokenizer,
            self.validation_data,
            batch_size=self.config.eval_batch_size,
            num_workers=self.config.dataloader_num_workers,
            limit=self.config.max_eval_samples,
            on_error=self.config.on_unreadable,
        )
        write_results(tokenizer, self.config, self.validation_data, results, self.step)
        self.journal.track(self.step, {f"evaluation/{name}": v for name, v in results["metrics"].items()})
        if self.config.push_to_hub:
            upload_results(self.config)
        return tokenizer


def enable_gradient_checkpointing(model: VQModelHF) -> None:
    """Recomputes activations in the backward pass; transformers names the method differently by version."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
