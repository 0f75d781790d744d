"""The settings of a training run, named as in the training scripts of diffusers."""

import dataclasses
import math
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
        "on_unreadable",
        "eval_batch_size",
        "max_eval_samples",
        "max_validation_samples",
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
        "hub_strategy",
    ]
)


@strict
@dataclass(kw_only=True)
class TrainingConfig:
    """The settings of a training run.

    Args:
        tokenizer: The tokenizer's configuration, or a dictionary of its fields with its `model_type`.
        output_dir: Folder for checkpoints, logs, sheets and the finished model; several nodes share it.
        imports: Packages to import first, such as one that defines a quantizer.
        init_from: A tokenizer to go on training, a folder or Hub id: its weights, a fresh optimizer. On the
            command line its configuration takes the place of the recipe's, with the `--tokenizer.*` flags on
            top.
        freeze_encoder: Whether the encoder and its projection keep their weights.
        freeze_codebook: Whether the quantizer keeps its entries; with `freeze_encoder` the tokens of a
            picture stay what they are.
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
        crop: The crop of training pictures: `"random_crop"` (shorter edge to the resolution),
            `"center_crop"`, `"random_resized_crop"` (20 to 100 % of the area), `"adm_crop"` and
            `"adm_random_crop"` (ADM's: the centre, or at random from 80 to 100 % of the shorter edge),
            `"celeba_crop"` (aligned CelebA's faces, 128 pixels around (89, 121)).
        eval_crop: The crop of validation pictures: `"center_crop"`, `"adm_crop"` or `"celeba_crop"`.
        random_flip: Whether to mirror every second picture.
        dataloader_num_workers: Processes that decode pictures.
        max_train_steps: Optimizer steps.
        num_train_epochs: Passes over the training split, in place of `max_train_steps`.
        train_batch_size: Pictures of one process in one micro-batch.
        eval_batch_size: Pictures at a time in the evaluation.
        gradient_accumulation_steps: Micro-batches of one optimizer step.
        gradient_checkpointing: Whether to recompute activations instead of keeping them.
        mixed_precision: `"no"`, `"fp16"` or `"bf16"`.
        seed: Seed of the initial weights, the order of the pictures and their augmentation.
        l1_weight: Weight of the mean absolute error of values in [-1, 1].
        l2_weight: Weight of the mean squared error of values in [-1, 1].
        perceptual_weight: Weight of the LPIPS distance.
        perceptual_network: Its trunk, `"vgg"` or `"alex"`.
        perceptual_trunk_weights: The trunk's weights: a local safetensors file, or a Hub repository with
            `model.safetensors`; by default the one that `vistok.evaluation.lpips` names.
        adversarial_weight: Weight of the adversarial loss of a patch discriminator; 0 for none.
        adversarial_loss: `"hinge"`, `"vanilla"` or `"non_saturating"`.
        adversarial_start_step: Step from which the generator is trained by it.
        adaptive_adversarial_weight: Whether to scale it by the ratio of the gradients that the reconstruction
            and it have at the decoder's last layer.
        discriminator_start_step: Step from which the discriminator is trained.
        discriminator_channels: Channels of its first layer.
        discriminator_layers: Layers that halve the picture.
        discriminator_normalization: `"batch"`, or `"group"`, which depends on no batch: several processes
            without a GPU equal one only so.
        r1_weight: Weight of the penalty on the discriminator's gradient at real pictures.
        lecam_weight: Weight of LeCAM, which keeps its logits near the other kind's average.
        learning_rate: Peak learning rate of AdamW.
        discr_learning_rate: The discriminator's; by default the same.
        scale_lr: Whether to multiply the rates by the pictures of an optimizer step, over all processes.
        lr_scheduler: A schedule of `transformers.get_scheduler`, of both rates.
        lr_warmup_steps: Steps of linear warm-up.
        adam_beta1: AdamW's beta1.
        adam_beta2: AdamW's beta2.
        adam_weight_decay: AdamW's weight decay, of the network's weights of two and more dimensions: neither
            biases and norms nor codebooks decay.
        adam_epsilon: AdamW's epsilon.
        max_grad_norm: Gradients are clipped to this norm, the discriminator's too.
        use_ema: Whether to keep, evaluate and save an exponential moving average of the weights.
        ema_decay: Its decay; in the first steps it is smaller.
        checkpointing_steps: Steps between checkpoints.
        checkpoints_total_limit: Checkpoints kept.
        resume_from_checkpoint: `"latest"`, which starts afresh where there is none, or the path of a
            checkpoint.
        validation_steps: Steps between validations: a sheet of pictures, and metrics.
        num_validation_images: Pictures on a sheet.
        max_validation_samples: Pictures that a validation measures; 0 for the sheet alone.
        logging_steps: Steps between lines of the log.
        report_to: `"tensorboard"`, `"wandb"`, `"trackio"` or `"none"`; `log.jsonl` is always written.
        tracker_project_name: The name of the project for the tracker.
        push_to_hub: Whether to upload the model.
        hub_model_id: The repository for it; by default the folder's name.
        hub_strategy: `"every_save"` uploads the model as it is at every checkpoint, beside the training,
            `"end"` the finished one alone.

    Raises:
        ValueError: A value has the wrong type or is out of range, or `resolution` is not the tokenizer's
            `image_size`.
    """

    tokenizer: dict | VisualTokenizerConfig
    output_dir: str
    imports: list[str] = dataclasses.field(default_factory=list)
    init_from: str | None = None
    freeze_encoder: bool = False
    freeze_codebook: bool = False

    dataset_name: str = "samples"
    dataset_config_name: str | None = None
    dataset_revision: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    image_column: str | None = None
    on_unreadable: Literal["error", "skip"] = "error"
    max_eval_samples: int | None = None
    resolution: int | None = None
    crop: Literal[
        "random_crop", "center_crop", "random_resized_crop", "adm_crop", "adm_random_crop", "celeba_crop"
    ] = "random_crop"
    eval_crop: Literal["center_crop", "adm_crop", "celeba_crop"] = "center_crop"
    random_flip: bool = True
    dataloader_num_workers: int = number(0, at_least=0)

    max_train_steps: int = number(1000, at_least=1)
    num_train_epochs: float | int | None = None
    train_batch_size: int = number(32, at_least=1)
    eval_batch_size: int = number(64, at_least=1)
    gradient_accumulation_steps: int = number(1, at_least=1)
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    seed: int = number(0, at_least=0)

    l1_weight: float | int = number(0.0, at_least=0)
    l2_weight: float | int = number(1.0, at_least=0)
    perceptual_weight: float | int = number(0.0, at_least=0)
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    perceptual_trunk_weights: str | None = None
    adversarial_weight: float | int = number(0.0, at_least=0)
    adversarial_loss: Literal["hinge", "vanilla", "non_saturating"] = "hinge"
    adversarial_start_step: int = number(0, at_least=0)
    adaptive_adversarial_weight: bool = True
    discriminator_start_step: int = number(0, at_least=0)
    discriminator_channels: int = number(64, at_least=1)
    discriminator_layers: int = number(3, at_least=1)
    discriminator_normalization: Literal["batch", "group"] = "batch"
    r1_weight: float | int = number(0.0, at_least=0)
    lecam_weight: float | int = number(0.0, at_least=0)

    learning_rate: float | int = number(1e-4, above=0)
    discr_learning_rate: float | int | None = None
    scale_lr: bool = False
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
    max_validation_samples: int = number(256, at_least=0)
    logging_steps: int = number(10, at_least=1)
    report_to: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    tracker_project_name: str = "vistok"
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_strategy: Literal["every_save", "end"] = "every_save"

    def __post_init__(self):
        if isinstance(self.tokenizer, dict):
            if "model_type" not in self.tokenizer:
                raise ValueError("tokenizer needs a model_type such as 'vistok_fsq'")
            self.tokenizer = AutoConfig.for_model(**self.tokenizer)
        if not isinstance(self.tokenizer, VisualTokenizerConfig):
            raise ValueError(
                f"tokenizer is of type {type(self.tokenizer).__name__}, which is no visual tokenizer"
            )
        if not self.output_dir.strip():
            raise ValueError("output_dir is empty: name a folder for the run")
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
        for name in ("max_eval_samples", "num_train_epochs", "discr_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not (self.l1_weight or self.l2_weight or self.perceptual_weight):
            raise ValueError("l1_weight, l2_weight and perceptual_weight are all 0: nothing to train for")
        if not self.adversarial_weight and (self.r1_weight or self.lecam_weight):
            raise ValueError("r1_weight and lecam_weight need a discriminator: set adversarial_weight too")
        if self.discriminator_start_step > self.adversarial_start_step:
            raise ValueError(
                f"discriminator_start_step is {self.discriminator_start_step}, after adversarial_start_step "
                f"{self.adversarial_start_step}: the discriminator must not come later than its loss"
            )

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
        # A setting that an older version had not was what its default is now.
        before = {**_flat({field.name: field.default for field in dataclasses.fields(self)}), **_flat(saved)}
        now = _flat(now)
        for name in sorted(set(before) | set(now)):
            if name.split(".")[0] not in _FREE_TO_CHANGE and before.get(name) != now.get(name):
                if before.get(name) is dataclasses.MISSING and name not in now:
                    continue
                raise ValueError(
                    f"The checkpoint was made with {name} {before.get(name)!r}, this run has "
                    f"{now.get(name)!r}; resume with the same settings, or start in another output_dir"
                )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


TrainingConfig.__init__ = as_value_error(TrainingConfig.__init__)
