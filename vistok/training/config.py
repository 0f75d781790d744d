"""The settings of a training run, named as in the training scripts of diffusers."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers import AutoConfig

from ..configuration import VisualTokenizerConfig, as_value_error, number


def _check_betas(beta: float) -> None:
    if not 0 <= beta < 1:
        raise ValueError(f"expected a number in [0, 1), got {beta!r}")


# What a resumed run may change: it alters where a run reports to and how often, not what it computes.
_FREE_TO_CHANGE = frozenset(
    [
        "output_dir",
        "eval_batch_size",
        "max_eval_samples",
        "dataloader_num_workers",
        "checkpointing_steps",
        "checkpoints_total_limit",
        "resume_from_checkpoint",
        "validation_steps",
        "num_validation_images",
        "logging_steps",
        "report_to",
        "tracker_project_name",
        "push_to_hub",
        "hub_model_id",
    ]
)


@strict
@dataclass(kw_only=True)
class TrainingConfig:
    """The settings of a training run.

    Args:
        tokenizer: The tokenizer's configuration, or a dictionary of its fields with its `model_type`.
        output_dir: Folder for checkpoints, logs, sheets and the finished model.
        imports: Packages to import first, such as one that defines a quantizer.
        dataset_name: Hub id, folder of pictures, folder or glob of Parquet files, WebDataset tars, or
            `"samples"`.
        dataset_config_name: The dataset's configuration on the Hub.
        dataset_revision: Branch, tag or commit of the dataset on the Hub.
        train_split: Split to train on.
        validation_split: Split for the sheets and the evaluation.
        image_column: Column of the pictures; by default the first image column.
        on_unreadable: What to do with a picture that cannot be read: stop, or skip and count it.
        max_eval_samples: Evaluate the first so many pictures only.
        resolution: Height and width in pixels; by default the tokenizer's `image_size`, and never another.
        center_crop: Whether to crop at the centre instead of at random.
        random_flip: Whether to mirror every second picture.
        dataloader_num_workers: Processes that decode pictures.
        max_train_steps: Optimizer steps.
        train_batch_size: Pictures of one process in one micro-batch.
        eval_batch_size: Pictures at a time in the evaluation.
        gradient_accumulation_steps: Micro-batches of one optimizer step.
        gradient_checkpointing: Whether to recompute activations instead of keeping them.
        mixed_precision: `"no"`, `"fp16"` or `"bf16"`.
        seed: Seed of the initial weights, the order of the pictures and their augmentation.
        reconstruction_loss: `"l1"` or `"l2"`, means over values in [-1, 1].
        reconstruction_weight: Its weight.
        learning_rate: Peak learning rate of AdamW.
        lr_scheduler: A schedule of `transformers.get_scheduler`.
        lr_warmup_steps: Steps of linear warm-up.
        adam_beta1: AdamW's beta1.
        adam_beta2: AdamW's beta2.
        adam_weight_decay: AdamW's weight decay.
        adam_epsilon: AdamW's epsilon.
        max_grad_norm: Gradients are clipped to this norm.
        use_ema: Whether to keep, evaluate and save an exponential moving average of the weights.
        ema_decay: Its decay; in the first steps it is smaller.
        checkpointing_steps: Steps between checkpoints.
        checkpoints_total_limit: Checkpoints kept.
        resume_from_checkpoint: `"latest"`, which starts afresh where there is none, or the path of a
            checkpoint.
        validation_steps: Steps between sheets of validation pictures.
        num_validation_images: Pictures on a sheet.
        logging_steps: Steps between lines of the log.
        report_to: `"tensorboard"` or `"none"`.
        tracker_project_name: The name of the run for the tracker.
        push_to_hub: Whether to upload the finished model.
        hub_model_id: The repository for it; by default the folder's name.

    Raises:
        ValueError: A value has the wrong type or is out of range, or `resolution` is not the tokenizer's
            `image_size`.
    """

    tokenizer: dict | VisualTokenizerConfig
    output_dir: str
    imports: list[str] = dataclasses.field(default_factory=list)

    dataset_name: str = "samples"
    dataset_config_name: str | None = None
    dataset_revision: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    image_column: str | None = None
    on_unreadable: Literal["error", "skip"] = "error"
    max_eval_samples: int | None = None
    resolution: int | None = None
    center_crop: bool = False
    random_flip: bool = True
    dataloader_num_workers: int = number(0, at_least=0)

    max_train_steps: int = number(1000, at_least=1)
    train_batch_size: int = number(32, at_least=1)
    eval_batch_size: int = number(64, at_least=1)
    gradient_accumulation_steps: int = number(1, at_least=1)
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    seed: int = number(0, at_least=0)

    reconstruction_loss: Literal["l1", "l2"] = "l2"
    reconstruction_weight: float | int = number(1.0, above=0)

    learning_rate: float | int = number(1e-4, above=0)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    lr_warmup_steps: int = number(0, at_least=0)
    adam_beta1: float | int = validated_field(_check_betas, default=0.9)
    adam_beta2: float | int = validated_field(_check_betas, default=0.99)
    adam_weight_decay: float | int = number(0.0, at_least=0)
    adam_epsilon: float | int = number(1e-8, above=0)
    max_grad_norm: float | int = number(1.0, above=0)
    use_ema: bool = True
    ema_decay: float | int = validated_field(_check_betas, default=0.999)

    checkpointing_steps: int = number(500, at_least=1)
    checkpoints_total_limit: int = number(3, at_least=1)
    resume_from_checkpoint: str | None = None
    validation_steps: int = number(500, at_least=1)
    num_validation_images: int = number(8, at_least=1)
    logging_steps: int = number(10, at_least=1)
    report_to: Literal["tensorboard", "none"] = "tensorboard"
    tracker_project_name: str = "vistok"
    push_to_hub: bool = False
    hub_model_id: str | None = None

    def __post_init__(self):
        if isinstance(self.tokenizer, dict):
            if "model_type" not in self.tokenizer:
                raise ValueError("tokenizer needs a model_type such as 'vistok_fsq'")
            self.tokenizer = AutoConfig.for_model(**self.tokenizer)
        if not isinstance(self.tokenizer, VisualTokenizerConfig):
            raise ValueError(
                f"tokenizer is of type {type(self.tokenizer).__name__}, which is no visual tokenizer"
            )
        if self.resolution is None:
            self.resolution = self.tokenizer.image_size
        if self.resolution != self.tokenizer.image_size:
            raise ValueError(
                f"resolution is {self.resolution} but the tokenizer's image_size is "
                f"{self.tokenizer.image_size}; set --tokenizer.image_size {self.resolution} too, "
                "or leave resolution out"
            )
        if self.resolution < 11:
            raise ValueError(f"image_size must be at least 11 to be evaluated by SSIM, got {self.resolution}")
        if self.max_eval_samples is not None and self.max_eval_samples < 1:
            raise ValueError(f"max_eval_samples must be at least 1, got {self.max_eval_samples}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, the tokenizer as in its file."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tokenizer = self.tokenizer.to_diff_dict()
        for clutter in ("transformers_version", "vistok_version", "dtype", "architectures"):
            tokenizer.pop(clutter, None)
        return {**values, "tokenizer": tokenizer}

    def check_resumable(self, saved: dict[str, Any]) -> None:
        """Compares with the settings of a checkpoint.

        Args:
            saved: `to_dict()` of the run that wrote the checkpoint.

        Raises:
            ValueError: A setting that changes what is computed differs; the message names it and both values.
        """
        now = self.to_dict()
        for name in sorted(set(saved) | set(now)):
            if name not in _FREE_TO_CHANGE and saved.get(name) != now.get(name):
                raise ValueError(
                    f"The checkpoint was made with {name} {saved.get(name)!r}, this run has "
                    f"{now.get(name)!r}; resume with the same settings, or start in another output_dir"
                )


TrainingConfig.__init__ = as_value_error(TrainingConfig.__init__)
