"""Pictures on the Hub: the plan pins their commit, and another one is refused."""

import pytest
from huggingface_hub import HfApi
from token_folders import run, write_pictures

from vistok.data import open_dataset
from vistok.extraction import PlanError
from vistok.extraction.plan import Plan

# httpx to huggingface_hub 2.4, about how it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_the_plan_pins_the_commit(hub, model, jpegs, tmp_path):
    api = HfApi()
    api.create_repo("org/photos", repo_type="dataset")
    for count in (30, 31):
        write_pictures(tmp_path / f"{count}.parquet", jpegs[:count])
        api.upload_file(
            path_or_fileobj=tmp_path / f"{count}.parquet",
            path_in_repo="data/train-00000-of-00001.parquet",
            repo_id="org/photos",
            repo_type="dataset",
        )
    before, after = (commit.oid for commit in hub.repos["dataset", "org/photos"].commits[-2:])
    pinned = open_dataset("org/photos", split="train", revision=before, memory_budget=0)
    manifest = run(model, pinned, tmp_path / "out")
    assert manifest["pictures"] == 30
    assert Plan.read(tmp_path / "out").values["dataset"]["revision"] == before
    moved = open_dataset("org/photos", split="train", memory_budget=0)
    with pytest.raises(PlanError, match=f'dataset.revision was "{before}", now it is "{after}"'):
        run(model, moved, tmp_path / "out")
