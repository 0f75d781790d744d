"""Train a small class-conditional autoregressive model on extracted tokens, and draw what it imagines.

    python scripts/train_ar.py --tokens TOKENS --validation_tokens VALIDATION_TOKENS --output_dir outputs/ar

The model is a plain `LlamaForCausalLM`: its vocabulary is the entries of the codebook, then the classes, then
"no class", which takes the place of every tenth class in training, so that samples can be guided
(Classifier-Free Diffusion Guidance, arXiv:2207.12598). A sequence is a class and the tokens of a picture, row
by row, as in LlamaGen (arXiv:2406.06525). Everything here is public: copy it and put your own model in.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler

from vistok import VistokImageProcessor, VQModelHF
from vistok.extraction import TokenDataset, load_tokens


def main() -> None:
    """Trains, validates, samples and writes it all down."""
    flags = parse()
    accelerator = Accelerator(mixed_precision=flags.mixed_precision)
    try:
        tokenizer = open_tokenizer(flags)
        training, validation = open_tokens(flags, tokenizer, accelerator.num_processes)
    except (ValueError, OSError) as error:
        sys.exit(f"train_ar.py: {' '.join(str(error).split())}")
    set_seed(flags.seed)
    names = class_names(training)
    entries, classes = training.codebook_size, len(names)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=entries + classes + 1,
            hidden_size=flags.hidden_size,
            intermediate_size=flags.hidden_size * 8 // 3,
            num_hidden_layers=flags.num_hidden_layers,
            num_attention_heads=flags.hidden_size // 64,
            max_position_embeddings=len(training[0]["tokens"]),
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), flags.learning_rate, betas=(0.9, 0.95), weight_decay=0.05
    )
    scheduler = get_scheduler("cosine", optimizer, flags.max_train_steps // 20, flags.max_train_steps)
    loader = DataLoader(training, flags.train_batch_size, shuffle=True, drop_last=True, collate_fn=collate)
    held_out = DataLoader(validation, flags.train_batch_size, collate_fn=collate)
    # The scheduler stays as it is: prepared, it would take a step for each process.
    model, optimizer, loader, held_out = accelerator.prepare(model, optimizer, loader, held_out)

    started, processor = time.monotonic(), time.process_time()
    model.train()
    step = 0
    with tqdm(
        total=flags.max_train_steps, desc="Training", unit="step", disable=not accelerator.is_main_process
    ) as bar:
        while step < flags.max_train_steps:
            for batch in loader:
                classes_seen = batch["label"].masked_fill(
                    torch.rand(len(batch["label"]), device=accelerator.device) < flags.label_dropout, classes
                )
                loss = loss_of(model, entries, classes_seen, batch["tokens"])
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                step += 1
                bar.update()
                if step % 20 == 0:
                    bar.set_postfix(loss=f"{loss.item():.3f}")
                if step == flags.max_train_steps:
                    break
    seconds, processor = time.monotonic() - started, time.process_time() - processor

    model.eval()
    sums = torch.zeros(2, device=accelerator.device)
    with torch.no_grad():
        for batch in held_out:
            losses = loss_of(model, entries, batch["label"], batch["tokens"], reduction="none").mean(1)
            losses = accelerator.gather_for_metrics(losses)
            sums += torch.stack([losses.sum(), torch.tensor(float(len(losses)), device=accelerator.device)])
    results = {
        "validation_loss": round((sums[0] / sums[1]).item(), 4),
        "unigram_entropy": round(unigram_entropy(validation), 4),
        "unit": "nats per token",
        "validation_pictures": len(validation),
        "training_rows": len(training),
        "steps": step,
        "epochs": round(step * flags.train_batch_size * accelerator.num_processes / len(training), 2),
        "training_seconds": round(seconds),
        "processor_seconds": round(processor),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if accelerator.is_main_process:
        folder = Path(flags.output_dir)
        generator = accelerator.unwrap_model(model)
        generator.save_pretrained(folder)
        draw = torch.Generator().manual_seed(flags.seed)
        labels = torch.randperm(classes, generator=draw)[: flags.num_classes].repeat_interleave(
            flags.per_class
        )
        tokens = sample(generator, entries, labels.to(accelerator.device), validation, flags)
        sheet(tokens, validation, tokenizer, flags.per_class).save(folder / "samples.png")
        results["classes_of_the_sheet"] = [names[i] for i in labels[:: flags.per_class]]
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(results, indent=2))


def open_tokenizer(flags: argparse.Namespace) -> VQModelHF:
    """The tokenizer of the flags, or else the one that the plan of the training tokens names.

    Raises:
        ValueError: It is not there, or there are no tokens.
    """
    name, revision = flags.tokenizer, None
    if name is None:
        made = load_tokens(flags.tokens, streaming=True).plan.values["tokenizer"]  # reads no shard yet
        name, revision = made["name"], made["revision"]
    try:
        return VQModelHF.from_pretrained(name, revision=revision or "main", dtype=torch.float32).eval()
    except (ValueError, OSError) as error:
        raise ValueError(f"No tokenizer {name}: {error}; say with --tokenizer where it is") from error


def open_tokens(
    flags: argparse.Namespace, tokenizer: VQModelHF, num_processes: int
) -> tuple[TokenDataset, TokenDataset]:
    """The training and the validation tokens.

    Raises:
        ValueError: They are not of the tokenizer, not alike, or nothing that this model can be trained on.
    """
    folders = flags.tokens, flags.validation_tokens
    training, validation = datasets = [load_tokens(folder, model=tokenizer) for folder in folders]
    for folder, dataset in zip(folders, datasets, strict=True):
        if dataset.plan.has_buckets:
            raise ValueError(f"{folder} has pictures of several shapes: extract without --buckets")
        if dataset.labels is None:
            raise ValueError(f"{folder} has no rows with labels: this model is class-conditional")
        if dataset.labels.min() < 0:
            raise ValueError(f"{folder} has rows without a label (-1): extract pictures that all have one")
        classes = len(class_names(training))
        if dataset.labels.max() >= classes:
            raise ValueError(
                f"{folder} has the label {dataset.labels.max()}, the classes of {flags.tokens} are 0 to "
                f"{classes - 1}: extract splits of the same classes"
            )
    names = [dataset.label_names for dataset in datasets]
    if None not in names and names[0] != names[1]:
        raise ValueError(
            f"{' and '.join(folders)} have other label names: extract splits of the same classes"
        )
    for part, field in ("tokenizer", "grid"), ("tokens", "order"):
        ours, theirs = (dataset.plan.values[part][field] for dataset in datasets)
        if ours != theirs:
            raise ValueError(
                f"The tokens' {field} is {ours} in {folders[0]}, {theirs} in {folders[1]}: extract both alike"
            )
    if flags.train_batch_size * num_processes > len(training):
        raise ValueError(
            f"--train_batch_size must be at most {len(training) // num_processes}, a process' share of "
            f"{flags.tokens}, got {flags.train_batch_size}"
        )
    return training, validation


def class_names(dataset: TokenDataset) -> list[str]:
    """The names of the classes, or else their numbers up to the highest label."""
    return dataset.label_names or [str(label) for label in range(dataset.labels.max() + 1)]


def collate(rows: list[dict]) -> dict[str, Tensor]:
    """Rows of a dataset of tokens as a batch: tokens int64 `(B, L)`, labels int64 `(B,)`."""
    return {
        "tokens": torch.stack([row["tokens"] for row in rows]),
        "label": torch.tensor([row["label"] for row in rows]),
    }


def loss_of(
    model: torch.nn.Module, entries: int, labels: Tensor, tokens: Tensor, reduction: str = "mean"
) -> Tensor:
    """The cross-entropy of each token after its class and the tokens before it, in nats."""
    sequence = torch.cat([entries + labels[:, None], tokens[:, :-1]], dim=1)
    logits = model(input_ids=sequence, use_cache=False).logits[..., :entries].float()
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction=reduction)
    return loss if reduction == "mean" else loss.view_as(tokens)


def unigram_entropy(dataset: TokenDataset) -> float:
    """The entropy in nats of the tokens' frequencies: what a model reaches that knows no more than these."""
    counts = sum(
        torch.bincount(dataset[i]["tokens"], minlength=dataset.codebook_size) for i in range(len(dataset))
    )
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum().item()


@torch.no_grad()
def sample(
    model: LlamaForCausalLM, entries: int, labels: Tensor, dataset: TokenDataset, flags: argparse.Namespace
) -> Tensor:
    """Tokens int64 `(B, L)` of classes, each drawn after those before it, whose keys and values are kept."""
    no_class = model.config.vocab_size - 1
    sequence = model.generate(
        entries + labels[:, None],
        negative_prompt_ids=torch.full_like(labels[:, None], no_class),
        guidance_scale=flags.guidance_scale,
        min_new_tokens=len(dataset[0]["tokens"]),
        max_new_tokens=len(dataset[0]["tokens"]),
        do_sample=True,
        temperature=flags.temperature,
        top_k=flags.top_k,
        suppress_tokens=list(range(entries, model.config.vocab_size)),
        use_cache=True,
    )
    return sequence[:, 1:].cpu()


def sheet(tokens: Tensor, dataset: TokenDataset, tokenizer: VQModelHF, columns: int) -> Image.Image:
    """The pictures of tokens, one class a row."""
    with torch.no_grad():
        pictures = VistokImageProcessor().postprocess(tokenizer.decode(dataset.to_grid(tokens)))
    width, height = pictures[0].size
    page = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for place, picture in enumerate(pictures):
        page.paste(picture, (place % columns * width, place // columns * height))
    return page


def parse() -> argparse.Namespace:
    """The flags, with the settings of a run of minutes on 2 CPU cores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", required=True, help="folder of the training tokens")
    parser.add_argument("--validation_tokens", required=True, help="folder of the validation tokens")
    parser.add_argument(
        "--output_dir", default="outputs/ar", help="folder for the model, results and samples"
    )
    parser.add_argument("--tokenizer", help="the tokenizer; by default the one that the tokens' plan names")
    parser.add_argument("--hidden_size", type=int, default=128, help="a multiple of 64")
    parser.add_argument("--num_hidden_layers", type=int, default=4)
    parser.add_argument("--max_train_steps", type=int, default=1500)
    parser.add_argument("--train_batch_size", type=int, default=32, help="pictures of one process")
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument(
        "--label_dropout", type=float, default=0.1, help="share of classes replaced by no class"
    )
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--guidance_scale", type=float, default=3.0, help="of the sheet; 1 is no guidance")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=0, help="draw among so many best; 0: among all")
    parser.add_argument("--num_classes", type=int, default=8, help="classes, a row of the sheet each")
    parser.add_argument("--per_class", type=int, default=8, help="pictures of a class")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    if flags.hidden_size < 64 or flags.hidden_size % 64:
        parser.error(f"--hidden_size must be a multiple of 64, got {flags.hidden_size}")
    for name in ("num_hidden_layers", "max_train_steps", "train_batch_size", "num_classes", "per_class"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(flags, name)}")
    return flags


if __name__ == "__main__":
    main()
