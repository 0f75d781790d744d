"""The training loop: batches in, a trained tokenizer out. One optimizer step is `Trainer.training_step`."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ..data import PictureStream, PictureTransform, check_layout, open_dataset, to_pixel_values
from ..evaluation import evaluate
from ..files import publish
from ..modeling import VQModelHF
from . import checkpoints
from .adversary import Adversary
from .config import TrainingConfig
from .journal import Journal
from .objective import Objective
from .optimization import build_optimizer, build_schedule, set_schedule, take_step
from .ranks import PeerError, together
from .results import Uploads, draw_validation_sheet, write_results
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)

_MOST_SKIPPED = 10  # steps in a row whose gradient is not finite: the run does not recover by itself


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what is safe."""


@dataclass
class StepOutput:
    """What an optimizer step made, means over its micro-batches on this process.

    Attributes:
        terms: The weighted terms of the tokenizer's loss by name, scalars.
        discriminator_terms: Those of the discriminator's loss; empty where it does not learn.
        squared_error: The mean squared error of the clamped reconstructions, a scalar; values in [-1, 1].
        gradient_norms: Of the tokenizer and the discriminator, before clipping.
        taken: Whether the weights were updated.
    """

    terms: dict[str, Tensor]
    discriminator_terms: dict[str, Tensor]
    squared_error: Tensor
    gradient_norms: list[Tensor]
    taken: bool


class Trainer:
    """Trains a tokenizer as a `TrainingConfig` says, on one process or on many.

    Building it opens the datasets and the model and resumes where asked to, so that what is wrong with them
    comes before any work. Several processes (`accelerate launch`, `torchrun`) train as one would on their
    joined batches.

    Args:
        config: The settings of the run.

    Raises:
        ValueError: A setting, the dataset or the checkpoint does not fit, or the output folder holds what the
            run would replace.

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
        self.journal = Journal(config)  # refuses a tracker that is not installed
        resume_from = checkpoints.checkpoint_to_resume(self.output_dir, config.resume_from_checkpoint)
        self.training_data = self._open(config.train_split)
        self.validation_data = self._open(config.validation_split)
        if self.validation_data.num_rows == 0:
            raise ValueError(f"{config.dataset_name} has no rows in split {config.validation_split!r}")
        set_seed(config.seed)
        _check_environment(config)
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            kwargs_handlers=[
                # Of a residual stage that dropout left out for all pictures.
                DistributedDataParallelKwargs(find_unused_parameters=config.tokenizer.quantizer_dropout > 0)
            ],
        )
        if config.mixed_precision == "fp16" and self.accelerator.device.type == "cpu":
            raise ValueError(  # accelerate would train in float32 without a word
                "mixed_precision fp16 needs a GPU: use bf16, which a CPU computes in too, or no"
            )
        if self.accelerator.gradient_accumulation_steps != config.gradient_accumulation_steps:
            raise ValueError(
                f"accelerate was told to accumulate {self.accelerator.gradient_accumulation_steps} steps "
                "(ACCELERATE_GRADIENT_ACCUMULATION_STEPS), the run "
                f"{config.gradient_accumulation_steps}: unset it, and set --gradient_accumulation_steps"
            )
        self.max_train_steps = self._count_steps()
        # The repository is made before the work, so that a token that is missing is missed now.
        self.uploads = Uploads(config, self.accelerator) if config.push_to_hub else None
        model = self._build_model()
        if config.freeze_encoder:
            model.encoder.requires_grad_(False)
            model.to_latents.requires_grad_(False)
        if config.freeze_codebook:
            model.quantizer.freeze_codebook()
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(model)
        rate_scale = self._pictures_per_step if config.scale_lr else 1
        optimizer = build_optimizer(model, config, config.learning_rate * rate_scale)
        self.schedule = build_schedule(optimizer, config, self.max_train_steps)
        self.objective = Objective.from_config(config).to(self.accelerator.device)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        # The quantizer keeps its averages equal on all ranks itself. As an attribute: torch 2.13 deprecates
        # the argument, and accelerate does not know its successor.
        if self.accelerator.num_processes > 1:
            self.model.broadcast_buffers = False
        self.tokenizer: VQModelHF = self.accelerator.unwrap_model(self.model)
        self.adversary = None
        if config.adversarial_weight:
            rate = config.discr_learning_rate or config.learning_rate
            self.adversary = Adversary(config, self.accelerator, rate * rate_scale, self.max_train_steps)
        self.ema = AveragedModel(self.tokenizer, multi_avg_fn=self._average) if config.use_ema else None
        self.stream = PictureStream(
            self.training_data,
            PictureTransform(config.resolution, config.crop, config.random_flip),
            batch_size=config.train_batch_size,
            seed=config.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=config.dataloader_num_workers,
            on_error=config.on_unreadable,
        )
        self.stopwatch = Stopwatch(self.accelerator.device)
        self.step = 0
        self.skipped = self.skipped_in_a_row = 0
        self.unreadable = 0
        if resume_from is not None:
            self._resume(resume_from)

    def train(self) -> VQModelHF:
        """Trains to the last step, evaluates and writes the finished model.

        Returns:
            The trained tokenizer in eval mode: the averaged weights where the run keeps them.

        Raises:
            TrainingError: Ten steps in a row had a loss or gradient that is not finite.
            CheckpointError: A checkpoint could not be written.
            WriteError: Nor could the finished model.
        """
        together(self.accelerator, self._open_folder, main_only=True)
        self.tokenizer.quantizer.set_step(self.step)
        try:
            self._run()
            return self._finish()
        except RuntimeError as error:
            if self.accelerator.num_processes > 1 and _is_of_connection(error):
                raise PeerError("Another process of the run has ended") from error
            raise
        finally:
            self.journal.close()

    def _open_folder(self) -> None:
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"output_dir {self.output_dir} cannot be made a folder: {error.strerror}"
            ) from error
        checkpoints.remove_leftovers(self.output_dir)
        self.journal.open(self.output_dir, self.step)

    def _run(self) -> None:
        config = self.config
        batches = self.stream.batches(pin_memory=self.accelerator.device.type == "cuda")
        bar = tqdm(
            total=self.max_train_steps,
            initial=self.step,
            desc="Training",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        logged = self.step
        self.stopwatch.restart()
        with closing(batches), bar:
            while self.step < self.max_train_steps:
                step = self.training_step(batches)
                if not step.taken:
                    continue
                last = self.step == self.max_train_steps
                bar.update()
                if last or self.step % config.logging_steps == 0:
                    speed = self.stopwatch.read(
                        self.step - logged, (self.step - logged) * self._pictures_per_step
                    )
                    logged = self.step
                    self._log(step, speed, bar)
                with self.stopwatch.paused():
                    if self.step % config.validation_steps == 0:
                        self._validate()
                    if last or self.step % config.checkpointing_steps == 0:
                        self._save_checkpoint()

    def training_step(self, batches: Iterator[dict[str, Tensor]]) -> StepOutput:
        """One optimizer step of both players: its micro-batches, the clipped gradients, the updates.

        A step whose loss or gradient is not finite is skipped and counted.

        Args:
            batches: Endless batches of a `PictureStream`.

        Returns:
            What the step made.
        """
        adversary, learns = self.adversary, False
        micro_batches = []
        for _ in range(self.config.gradient_accumulation_steps):
            with self.stopwatch.waiting_for_data():
                batch = next(batches)
            self.unreadable += int(batch["unreadable"])
            pixel_values = to_pixel_values(batch["pixels"].to(self.accelerator.device, non_blocking=True))
            with self.accelerator.accumulate(self.model, *([adversary.model] if adversary else [])):
                out = self.model(pixel_values)
                terms = self.objective(pixel_values, out)
                judged = {}
                if adversary is not None and adversary.trains_generator(self.step):
                    distance = sum(term for name, term in terms.items() if not name.startswith("quantizer/"))
                    terms["adversarial"] = adversary.generator_term(
                        out.reconstruction, distance, self.tokenizer.decoder.last_layer
                    )
                self.accelerator.backward(sum(terms.values()))
                if adversary is not None and adversary.learns(self.step):
                    learns = True
                    judged = adversary.discriminator_terms(pixel_values, out.reconstruction)
                    self.accelerator.backward(sum(judged.values()))
            micro_batches.append((terms, judged, _squared_error(out.reconstruction, pixel_values)))
        terms, judged, error = _mean(micro_batches)
        norms = take_step(
            self.accelerator,
            [self.optimizer, *([adversary.optimizer] if learns else [])],
            sum(terms.values()) + sum(judged.values()),
            self.config.max_grad_norm,
        )
        if norms is not None:
            self._follow_step(learns)
        else:
            self._skip_step(terms | {f"discriminator/{name}": term for name, term in judged.items()})
        return StepOutput(terms, judged, error, norms or [], taken=norms is not None)

    def _follow_step(self, learned: bool) -> None:
        """What follows an optimizer step; `learned`: whether the discriminator took one too."""
        self.schedule.step()
        self.step += 1
        self.skipped_in_a_row = 0
        self.tokenizer.quantizer.set_step(self.step)
        if self.ema is not None:
            self.ema.update_parameters(self.tokenizer)
        if self.adversary is not None:
            self.adversary.step_taken(learned)

    def _skip_step(self, terms: dict[str, Tensor]) -> None:
        self.tokenizer.quantizer.discard_statistics()
        if self.adversary is not None:
            self.adversary.step_skipped()
        self.skipped += 1
        self.skipped_in_a_row += 1
        means = self.accelerator.reduce(torch.stack([t.float() for t in terms.values()]), "mean").tolist()
        values = ", ".join(f"{name} {mean:.4g}" for name, mean in zip(terms, means, strict=True))
        if self.accelerator.is_main_process:
            logger.warning(
                "Skipped a step after %d: its loss or gradient is not finite (%s)", self.step, values
            )
        if self.skipped_in_a_row >= _MOST_SKIPPED:
            last = checkpoints.latest_checkpoint(self.output_dir)
            if not self.accelerator.is_main_process:
                raise PeerError("The main process says why")
            raise TrainingError(
                f"{_MOST_SKIPPED} steps in a row after step {self.step} had a loss or gradient that is not "
                f"finite ({values}). The last good checkpoint is {last or 'none'}; lower --learning_rate or "
                "use --mixed_precision no"
            )

    @torch.no_grad()
    def _log(self, step: StepOutput, speed: dict[str, float], bar: tqdm) -> None:
        measured = {
            **step.terms,
            **{f"discriminator/{name}": term for name, term in step.discriminator_terms.items()},
            "squared_error": step.squared_error,
            "unreadable_pictures": torch.tensor(float(self.unreadable), device=step.squared_error.device),
        }
        joined = self.accelerator.reduce(torch.stack([v.float() for v in measured.values()]), "mean")
        values = dict(zip(measured, joined.tolist(), strict=True))
        unreadable = round(values.pop("unreadable_pictures") * self.accelerator.num_processes)
        error = values.pop("squared_error")
        values["loss"] = math.fsum(values[name] for name in step.terms)
        values["psnr"] = 10 * math.log10(4 / max(error, 1e-12))
        values["gradient_norm"] = step.gradient_norms[0].item()
        values["learning_rate"] = self.schedule.get_last_lr()[0]
        if step.discriminator_terms:
            values["discriminator/gradient_norm"] = step.gradient_norms[1].item()
        if "adversarial" in step.terms and self.config.adaptive_adversarial_weight:
            values["adaptive_weight"] = float(self.adversary.adaptive_weight)
        if unreadable:
            values["unreadable_pictures"] = unreadable
        if self.skipped:
            values["skipped_steps"] = self.skipped
        bar.set_postfix_str(
            f"loss {values['loss']:.4f}, psnr {values['psnr']:.2f} dB, "
            f"{speed['images_per_second']:.0f} images/s, waiting for data {speed['data_wait_share']:.0%}"
        )
        values |= {f"performance/{name}": value for name, value in speed.items()}
        together(self.accelerator, lambda: self.journal.write(self.step, values), main_only=True)

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

    def _count_steps(self) -> int:
        """Optimizer steps of the run."""
        if self.config.num_train_epochs is None:
            return self.config.max_train_steps
        rows = self.training_data.num_rows
        if rows is None:
            raise ValueError(
                f"num_train_epochs: {self.config.dataset_name} does not tell how many rows it has; set "
                "max_train_steps instead"
            )
        return max(1, round(self.config.num_train_epochs * rows / self._pictures_per_step))

    @property
    def _pictures_per_step(self) -> int:
        config = self.config
        return config.train_batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes

    def _build_model(self) -> VQModelHF:
        if self.config.init_from is None:
            model = VQModelHF(self.config.tokenizer)
        else:
            model = VQModelHF.from_pretrained(self.config.init_from, config=self.config.tokenizer)
        return model.train()

    def _resume(self, checkpoint: Path) -> None:
        state = checkpoints.load_state(checkpoint)
        self.config.check_resumable(state["config"])
        check_layout(state["layout"], self.stream.layout)
        self.accelerator.load_state(str(checkpoint))
        if self.ema is not None:
            self.ema.load_state_dict(load_file(checkpoint / "ema.safetensors"))
        self.step = state["step"]
        self.unreadable = state["unreadable"] if self.accelerator.is_main_process else 0
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]
        self.stream.batches_done = state["batches_done"]
        set_schedule(self.schedule, self.step)
        if self.adversary is not None:
            self.adversary.resume(state["adversary"], self.step)
        logger.info("Resumed from %s", checkpoint)

    def _save_checkpoint(self) -> None:
        unreadable = torch.tensor(self.unreadable, device=self.accelerator.device)
        state = {
            "step": self.step,
            "batches_done": self.stream.batches_done,
            "unreadable": int(self.accelerator.reduce(unreadable, "sum")),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "adversary": None if self.adversary is None else self.adversary.state(),
            "layout": self.stream.layout,
            "config": self.config.to_dict(),
        }

        def write(folder: Path) -> None:
            self.accelerator.save_state(str(folder))
            if self.ema is not None and self.accelerator.is_main_process:
                save_file(
                    {k: v.contiguous() for k, v in self.ema.state_dict().items()}, folder / "ema.safetensors"
                )

        checkpoints.save_checkpoint(self.accelerator, self.output_dir, self.step, write, state)
        limit = self.config.checkpoints_total_limit
        together(self.accelerator, lambda: checkpoints.keep_newest(self.output_dir, limit), main_only=True)
        if self.uploads is not None and self.config.hub_strategy == "every_save":
            together(
                self.accelerator,
                lambda: self.uploads.push(self._averaged_tokenizer(), self.step),
                main_only=True,
            )

    def _validate(self) -> None:
        """Draws a sheet of validation pictures and measures some."""
        tokenizer = self._averaged_tokenizer()
        was_training = tokenizer.training
        tokenizer.eval()

        def draw() -> None:
            sheet = draw_validation_sheet(tokenizer, self.validation_data, self.config)
            name = f"step-{self.step:07d}.png"
            publish(self.output_dir / "sheets", lambda folder: sheet.save(folder / name))
            self.journal.show(self.step, "validation/pictures", sheet)

        together(self.accelerator, draw, main_only=True)
        if limit := self.config.max_validation_samples:
            metrics = self._evaluate(tokenizer, limit, progress=False)["metrics"]
            values = {f"validation/{name}": metrics[name] for name in _VALIDATED if name in metrics}
            together(self.accelerator, lambda: self.journal.write(self.step, values), main_only=True)
        tokenizer.train(was_training)

    def _evaluate(self, tokenizer: VQModelHF, limit: int | None, progress: bool) -> dict:
        return evaluate(
            tokenizer,
            self.validation_data,
            crop=self.config.eval_crop,
            batch_size=self.config.eval_batch_size,
            num_workers=self.config.dataloader_num_workers,
            limit=limit,
            on_error=self.config.on_unreadable,
            progress=progress,
        )

    def _finish(self) -> VQModelHF:
        tokenizer = self._averaged_tokenizer().eval()
        results = self._evaluate(tokenizer, self.config.max_eval_samples, progress=True)

        def write() -> None:
            write_results(tokenizer, self.config, self.validation_data, results, self.step)
            self.journal.track(self.step, {f"evaluation/{name}": v for name, v in results["metrics"].items()})
            if self.uploads is not None:
                self.uploads.finish()

        together(self.accelerator, write, main_only=True)
        return tokenizer


# What a validation logs, of what `evaluate` measures.
_VALIDATED = ("l1", "psnr", "ssim", "codebook_usage", "codebook_perplexity")


@torch.no_grad()
def _squared_error(reconstruction: Tensor, pixel_values: Tensor) -> Tensor:
    return (reconstruction.float().clamp(-1, 1) - pixel_values).square_().mean()


def _mean(
    micro_batches: list[tuple[dict[str, Tensor], dict[str, Tensor], Tensor]],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """The means over micro-batches of both players' terms, and of the squared error."""
    terms, judged, errors = zip(*micro_batches, strict=True)
    means = [
        {name: torch.stack([values[name].detach() for values in each]).mean() for name in each[0]}
        for each in (terms, judged)
    ]
    return *means, torch.stack(errors).mean()


def _check_environment(config: TrainingConfig) -> None:
    """Refuses what `accelerate config` may ask for and this loop does not do; lets a process train twice."""
    for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("true", "1"):
            raise ValueError(
                f"ACCELERATE_USE_{name} is set, but tokenizers are trained without it: leave it out of "
                "`accelerate config`"
            )
    before = AcceleratorState._shared_state.get("_mixed_precision")
    if before is not None and before != config.mixed_precision:
        AcceleratorState._reset_state()  # accelerate allows one precision in a process: an earlier run's


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether it says that another process is gone; gloo's errors have no type of their own."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def enable_gradient_checkpointing(model: VQModelHF) -> None:
    """Recomputes activations in the backward pass; transformers names the method differently by version."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
