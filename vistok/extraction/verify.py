"""Looks for all that can be wrong with a dataset of tokens: bytes, counts, rows, the tokens themselves."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data import Source
from ..modeling import VQModelHF
from .batches import Batches
from .encoding import DTYPES, TokenEncoder, exact_arithmetic
from .manifest import check_manifest, refuse_other_plan
from .payload import Payload
from .plan import Plan, Shard
from .reader import check_tokenizer
from .rows import RowReader, decode_row
from .shard_reading import read_record, read_table
from .shards import DATA, STATUSES, record_path, shard_path

SAMPLES = 256  # pictures that are encoded again
SHARDS_SAMPLED = 4  # from so many shards: each may mean to read a file of pictures
# The share of float32 tokens that another batch or machine may change (measured: 0 to 49 in a million).
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}


@dataclass
class Verification:
    """What `verify` found.

    `problems`: a line each, empty where all is well. `shards`, `pictures`, `tokens`: how many were read.
    `encoded_again`, `differing`: tokens that were compared with fresh ones, and how many of them differ.
    """

    problems: list[str] = field(default_factory=list)
    shards: int = 0
    pictures: int = 0
    tokens: int = 0
    encoded_again: int = 0
    differing: int = 0


def verify(
    folder: str | Path,
    *,
    model: VQModelHF | None = None,
    source: Source | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Verification:
    """Reads all of a dataset of tokens and compares it with its hashes, its plan and fresh tokens.

    Args:
        folder: The folder of the tokens.
        model: The tokenizer in float32; with it, its identity is checked.
        source: The pictures; with them and the model, a sample is encoded again.
        samples: Pictures of the sample.
        seed: Of the sample.

    Returns:
        Counts, and a line for each problem.

    Raises:
        PlanError: There is no plan, it is damaged, or it is not the one that the shards were written under.
    """
    folder = Path(folder)
    plan = Plan.read(folder)
    refuse_other_plan(folder, plan)
    found = Verification()
    for shard in plan.shards:
        try:
            _check_shard(folder, plan, shard, found)
        except ValueError as error:
            found.problems.append(str(error))
    try:
        check_manifest(folder, plan)
    except ValueError as error:
        if str(error) not in found.problems:
            found.problems.append(str(error))
    expected = {p for s in plan.shards for p in (shard_path(folder, s), record_path(shard_path(folder, s)))}
    for path in sorted((folder / DATA).glob("*")):
        if path not in expected:
            found.problems.append(f"{path} is in no plan: delete it")
    if model is not None and not found.problems:
        _check_tokens(folder, plan, model, source, samples, seed, found)
    return found


def _check_shard(folder: Path, plan: Plan, shard: Shard, found: Verification) -> None:
    record = read_record(folder, plan, shard)
    table = read_table(folder, plan, shard)
    path = shard_path(folder, shard)
    payload = Payload(table.schema.names)
    payload.update(table)
    views = len(plan.views.names)
    rows = table["row"].to_numpy()
    status = table["status"].to_numpy()
    tokens = table["tokens"].combine_chunks()
    values = tokens.flatten().to_numpy()
    pictures = np.arange(record["start"], record["stop"])
    bad = status[::views]
    unreadable = {STATUSES[s]: int((bad == s).sum()) for s in np.unique(bad[bad > 0]) if s < len(STATUSES)}
    missing = tokens.is_null().to_numpy(zero_copy_only=False)
    wrong = {
        "its values": payload.hexdigest() != record["payload_sha256"],
        "its size": path.stat().st_size != record["bytes"],
        "its first row": record["start"] != shard.start,
        "its last row": shard.stop is not None and record["stop"] != shard.stop,
        "its rows": not np.array_equal(rows, np.repeat(pictures, views)) or len(rows) != record["rows"],
        "its views": not np.array_equal(table["view"].to_numpy(), np.tile(np.arange(views), len(pictures))),
        "its file": bool((table["file"].to_numpy() != shard.file).any()),
        "its unreadable pictures": unreadable != record["unreadable"]
        or bool((status >= len(STATUSES)).any()),
        "its missing tokens": not np.array_equal(missing, status > 0),
        "its tokens": bool(len(values)) and int(values.max()) >= plan.values["tokenizer"]["codebook_size"],
    }
    found.problems += [f"{path}: {what} are not as recorded" for what, is_wrong in wrong.items() if is_wrong]
    found.shards += 1
    found.pictures += len(pictures)
    found.tokens += len(values)


def _check_tokens(
    folder: Path,
    plan: Plan,
    model: VQModelHF,
    source: Source | None,
    samples: int,
    seed: int,
    found: Verification,
) -> None:
    try:
        check_tokenizer(plan, model)
    except ValueError as error:
        found.problems.append(str(error))
        return
    if source is None or not samples:
        return
    if source.fingerprint != plan.values["dataset"]["fingerprint"]:
        found.problems.append(
            f"The pictures of {source.name} are others: their fingerprint is {source.fingerprint}, the plan "
            f"has {plan.values['dataset']['fingerprint']}"
        )
        return
    numerics = plan.values["numerics"]
    dtype = next(name for name, value in DTYPES.items() if str(value) == f"torch.{numerics['dtype']}")
    draw = np.random.default_rng(seed)
    filled = [s for s in plan.shards if read_record(folder, plan, s)["rows"]]
    picked = draw.choice(len(filled), min(SHARDS_SAMPLED, len(filled)), replace=False)
    reader = RowReader(source)
    with exact_arithmetic():
        encoder = TokenEncoder(model, numerics["batch_size"], dtype, plan.values["tokens"]["order"])
        for shard in (filled[i] for i in sorted(picked)):
            _check_sample(folder, plan, shard, reader, encoder, -(-samples // len(picked)), draw, found)
    allowed = max(1, TOLERANCE[numerics["dtype"]] * found.encoded_again)
    if found.differing > allowed:
        found.problems.append(
            f"{found.differing:,} of {found.encoded_again:,} tokens differ when they are made again: were "
            "they made on another machine, or by another version?"
        )


def _check_sample(
    folder: Path,
    plan: Plan,
    shard: Shard,
    reader: RowReader,
    encoder: TokenEncoder,
    samples: int,
    draw: np.random.Generator,
    found: Verification,
) -> None:
    table = read_table(folder, plan, shard)
    views = plan.views
    count = len(table) // len(views.names)
    chosen = set(draw.choice(count, min(samples, count), replace=False).tolist())
    digests, status, tokens = table["sha256"], table["status"], table["tokens"]
    batches = Batches(encoder, views)
    again = {}
    for place, picture in enumerate(reader.read(shard)):
        if place not in chosen:
            continue
        first = place * len(views.names)
        row, pixels = decode_row(picture, views)
        if row.sha256 != digests[first].as_py() or row.status != status[first].as_py():
            found.problems.append(f"{plan.where(shard, row.row)} is another picture than was encoded")
        elif not row.status:
            batches.add(row, pixels)
            again[first] = row
    batches.flush()
    for first, row in again.items():
        before = np.array([tokens[first + view].as_py() for view in range(len(views.names))])
        found.encoded_again += before.size
        found.differing += int((row.tokens != before).sum())
