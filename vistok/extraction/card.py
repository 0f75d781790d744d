"""The card of a dataset of tokens: what made it, and how to read it."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCardData, HfApi

from ..files import write_whole
from .manifest import MANIFEST, damaged_shards, open_complete, read_manifest
from .plan import PLAN, Plan
from .shard_reading import ShardError
from .shards import DATA, record_path, shard_path

CARD = "README.md"
_USE = """\
```python
from vistok.extraction import load_tokens

dataset = load_tokens("{name}")  # checks hashes while it reads
row = dataset[0]  # row["tokens"]: int64 ({shape},), row["label"]
```
"""


def write_card(folder: Path, plan: Plan, name: str | None = None) -> None:
    """Writes `README.md`, where nobody wrote one.

    Args:
        folder: The folder of the tokens.
        plan: Its plan.
        name: What the example loads; by default the folder's name.
    """
    if not (folder / CARD).exists():
        write_whole(folder / CARD, card(folder, plan, name or folder.resolve().name).encode())


def card(folder: Path, plan: Plan, name: str) -> str:
    """The text of the card."""
    manifest = read_manifest(folder, plan)
    values = plan.values
    tokenizer, dataset, numerics = values["tokenizer"], values["dataset"], values["numerics"]
    split = "".join(c if c.isalnum() else "_" for c in dataset["split"])
    data = DatasetCardData(
        task_categories=["unconditional-image-generation"],
        tags=["vistok", "visual-tokens"],
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": f"{DATA}/*.parquet"}]}],
    )
    rows = {
        "tokenizer": f"`{_public(tokenizer['name'])}`, {tokenizer['model_type'].removeprefix('vistok_')}",
        "its revision": tokenizer["revision"],
        "SHA-256 of its weights": f"`{tokenizer['weights_sha256']}`",
        "dataset": f"`{_public(dataset['name'])}`, split {dataset['split']}",
        "its revision ": dataset["revision"],
        "pictures": f"{manifest['pictures']:,}",
        "unreadable": ", ".join(f"{k}: {v}" for k, v in manifest["unreadable"].items()) or "none",
        "rows (views of pictures)": f"{manifest['rows']:,}",
        "views": ", ".join(values["preprocessing"]["views"]),
        "resolution": "several" if plan.has_buckets else values["preprocessing"]["resolution"],
        "crop": f"{values['preprocessing']['crop']}, {values['preprocessing']['resize_filter']}",
        "tokens of a view": "several" if plan.has_buckets else plan.tokens_per_view,
        "entries of the codebook": f"{tokenizer['codebook_size']:,}",
        "codebooks": tokenizer["num_codebooks"],
        "order of codebooks": values["tokens"]["order"] if tokenizer["num_codebooks"] > 1 else None,
        "dtype of the network": numerics["dtype"],
        "tokens that differ from float32": _percent(numerics.get("share_differing_from_float32")),
    }
    table = "\n".join(f"| {key.strip()} | {value} |" for key, value in rows.items() if value is not None)
    shape = "L" if plan.has_buckets else plan.tokens_per_view
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {name.split('/')[-1]}\n\nTokens of pictures, made by vistok.\n\n"
        f"| | |\n|---|---|\n{table}\n\n## Use\n\n{_USE.format(name=name, shape=shape)}\n"
        f"`{PLAN}` says in full how they were made, `{MANIFEST}` lists the shards and their hashes. "
        "`datasets` reads the shards too; `key` and `sha256` say which picture a row was.\n"
    )


def push_tokens(
    folder: str | Path, repo_id: str, *, private: bool | None = None, token: str | bool | None = None
) -> str:
    """Uploads a complete dataset of tokens with its card as one commit, after a look at every hash.

    `plan.json` names dataset and tokenizer as they were given to the extraction, paths included.

    Args:
        folder: The folder of the tokens.
        repo_id: The dataset's repository, `"org/name"`; made if needed. Shards that are there are replaced,
            a card is left alone.
        private: Whether a new repository is private.
        token: The token to authenticate with; by default the one stored by `hf auth login`.

    Returns:
        The address of the commit.

    Raises:
        PlanError: There is no plan, or it is not that of the shards.
        IncompleteError: The extraction has not ended.
        ShardError: A shard or its record is missing or damaged. Nothing was made on the Hub.
    """
    folder = Path(folder)
    plan = open_complete(folder)
    damaged = damaged_shards(folder, plan)
    if damaged:
        raise ShardError(
            f"{len(damaged)} of {len(plan.shards)} shards are missing or not as recorded, the first is "
            f"{shard_path(folder, damaged[0])}: delete them and run the extraction again, or fetch them again"
        )
    text = card(folder, plan, repo_id)
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
    files = {PLAN: folder / PLAN, MANIFEST: folder / MANIFEST}
    for shard in plan.shards:
        path = shard_path(folder, shard)
        files |= {f"{DATA}/{p.name}": p for p in (path, record_path(path))}
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    if not api.file_exists(repo_id, CARD, repo_type="dataset"):
        operations.append(CommitOperationAdd(CARD, text.encode()))
    for name in api.list_repo_files(repo_id, repo_type="dataset"):
        if name.startswith(f"{DATA}/") and name not in files:  # of another extraction, which was there before
            operations.append(CommitOperationDelete(name))
    return api.create_commit(
        repo_id, operations, repo_type="dataset", commit_message="Upload tokens"
    ).commit_url


def _public(name: str) -> str:
    """A Hub id as it is; of a local path its last part."""
    return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else Path(name).name


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
