"""The end of an extraction: every shard is compared with its record, then a manifest lists them all."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import TEMPORARY, write_whole
from .plan import PLAN, Plan, PlanError, Shard
from .shard_reading import is_done, read_record, remove_shard
from .shards import DATA, as_json, shard_path

MANIFEST = "manifest.json"
LEASES = "leases"
END = "end"  # the lease of whoever writes the manifest


class IncompleteError(ValueError):
    """Tokens are not all there yet; the message says how many shards are."""


def open_complete(folder: Path) -> Plan:
    """The plan of a folder whose shards are all there; the shards themselves are not read.

    Raises:
        PlanError: There is no plan, it is damaged, or manifest and records are not of it.
        IncompleteError: There is no manifest: the extraction has not ended.
        ShardError: A record is missing or damaged.
    """
    plan = Plan.read(folder)
    check_manifest(folder, plan)
    return plan


def check_manifest(folder: Path, plan: Plan) -> None:
    """Compares the manifest with the plan and the records; raises what `open_complete` does."""
    refuse_other_plan(folder, plan)
    if read_manifest(folder, plan) != describe_shards(folder, plan):
        raise PlanError(
            f"{folder / MANIFEST} lists other shards than are there: run the extraction again, with the same "
            "command, or fetch the folder again"
        )


def refuse_other_plan(folder: Path, plan: Plan) -> None:
    """Tells a plan that was changed from a shard that strayed in: then all others agree on one plan.

    Raises:
        PlanError: Manifest and records were all written under one plan, and it is not this one.
    """
    found = set()
    for path in (folder / MANIFEST, *sorted((folder / DATA).glob("*.json"))):
        written = _plan_id(path)
        if written == plan.id:
            return
        found.add(written)
    found.discard(None)
    if len(found) == 1:
        raise PlanError(
            f"{folder / PLAN} is not the plan that its shards were written under: its SHA-256 is {plan.id}, "
            f"theirs is {found.pop()}; restore that file and leave the shards as they are"
        )


def _plan_id(path: Path) -> str | None:
    """The plan that a manifest or record names, None of one that is damaged, which others report."""
    try:
        return str(json.loads(path.read_bytes())["plan_id"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def describe_shards(folder: Path, plan: Plan) -> dict[str, Any]:
    """What the manifest says, from the records.

    Raises:
        ShardError: A record is missing or damaged.
    """
    shards, unreadable, files = [], {}, {}
    for shard in plan.shards:
        record = read_record(folder, plan, shard)
        shards.append(
            {
                "name": shard.name,
                "rows": record["rows"],
                "sha256": record["sha256"],
                "record_sha256": hashlib.sha256(as_json(record)).hexdigest(),
            }
        )
        for reason, count in record["unreadable"].items():
            unreadable[reason] = unreadable.get(reason, 0) + count
        files[shard.file] = max(files.get(shard.file, 0), record["stop"])
    lengths = [files.get(file, 0) for file in range(len(plan.values["dataset"]["files"]))]
    return {
        "plan_id": plan.id,
        "pictures": sum(lengths),
        "pictures_of_files": lengths,
        "rows": sum(shard["rows"] for shard in shards),
        "unreadable": dict(sorted(unreadable.items())),
        "sha256_of_hashes": hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest(),
        "shards": shards,
    }


def read_manifest(folder: Path, plan: Plan) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        IncompleteError: There is none: the extraction has not ended.
        ValueError: It is damaged or of another plan.
    """
    path = folder / MANIFEST
    if not path.exists():
        done = sum(is_done(folder, plan, shard) for shard in plan.shards)
        raise IncompleteError(
            f"{folder} is not complete: {done} of {len(plan.shards)} shards are there and no {MANIFEST}; run "
            "the extraction again, with the same command"
        )
    data = path.read_bytes()
    try:
        manifest = json.loads(data)
        if as_json(manifest) != data:
            raise ValueError("it is not as it was written")
        mine = manifest["plan_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): run the extraction again") from error
    if mine != plan.id:
        raise ValueError(f"{path} was written for another plan: run the extraction again")
    return manifest


def damaged_shards(folder: Path, plan: Plan) -> list[Shard]:
    """The shards that are not there, or whose bytes are not those of their records; every file is read."""
    return [shard for shard in plan.shards if not _is_whole(folder, plan, shard)]


def _is_whole(folder: Path, plan: Plan, shard: Shard) -> bool:
    if not is_done(folder, plan, shard):
        return False
    with shard_path(folder, shard).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == read_record(folder, plan, shard)["sha256"]


def finish(folder: Path, plan: Plan) -> list[Shard]:
    """Writes the manifest, where every shard is whole.

    Returns:
        The shards that were damaged. They are taken away, to be extracted again.
    """
    damaged = damaged_shards(folder, plan)
    for shard in damaged:
        remove_shard(folder, shard)
    if not damaged:
        write_whole(folder / MANIFEST, as_json(describe_shards(folder, plan)))
    return damaged


def leftovers(folder: Path) -> list[Path]:
    """What workers that died left behind, and the leases of those that live."""
    unfinished = [p for place in (folder, folder / DATA) for p in place.glob(f"{TEMPORARY}*")]
    return unfinished + [path for path in (folder / LEASES).glob("*") if path.is_file()]


def tidy(folder: Path) -> None:
    """Removes what is left when all shards are there, but the leases on the end itself."""
    for path in leftovers(folder):
        if not path.name.startswith(f"{END}."):
            path.unlink(missing_ok=True)
