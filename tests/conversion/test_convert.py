"""From a file, folder or Hub id to a folder that loads: what is reported, refused and left behind."""

import dataclasses
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file

from tests.conversion.hostile import write_system_call
from vistok import SimpleCNNConfig, VQConfig, VQModelHF
from vistok.cli import main
from vistok.conversion import FAMILIES, convert
from vistok.conversion.base import Converted, Family, Published, Source, rename, setting
from vistok.conversion.sources import load_settings, locate

conversion = sys.modules["vistok.conversion.convert"]  # the package's `convert` is the function
# httpx to huggingface_hub 2.4, about how it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NETWORK = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
# Each list holds the one before it ten times.
LAUGHS = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}' if i else '1'] * 10)}]" for i in range(12))
FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}


def _convert(source: Source, *, image_size: int | None = None, weights: str = "raw") -> Converted:
    taken = source.weights("ema" if weights == "ema" else "model", "")
    renamed = rename(taken, {r"net\.(.*)": r"\1"}, drop=(r"loss\..*", "step"))
    size = len(taken["net.quantizer.codebook"])
    image_size = image_size or setting(source.settings, "size", default=32)
    config = VQConfig(codebook_size=size, codebook_dim=4, image_size=image_size, network=NETWORK)
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


MADE_UP = Family(
    name="made_up",
    project="org/made-up",
    convert=_convert,
    options=("weights",),
    published=(
        Published("org/theirs/sub/model.pt", "the first", "PSNR 20"),
        Published("model.pt", "anybody's", "PSNR 99"),
    ),
)


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    monkeypatch.setitem(FAMILIES, "made_up", MADE_UP)


@pytest.fixture(scope="module")
def model() -> VQModelHF:
    return VQModelHF(VQConfig(codebook_size=8, codebook_dim=4, image_size=32, network=NETWORK)).eval()


@pytest.fixture(scope="module")
def theirs(model) -> dict[str, torch.Tensor]:
    """The weights of a model under another project's names, with what it does not need."""
    weights = {f"net.{name}": weight.contiguous() for name, weight in model.state_dict().items()}
    return weights | {"loss.a": torch.ones(1), "loss.b": torch.ones(1), "step": torch.tensor(3)}


@pytest.fixture
def file(tmp_path, theirs) -> Path:
    (tmp_path / "run").mkdir()
    save_file(theirs, tmp_path / "run" / "model.safetensors")
    return tmp_path / "run" / "model.safetensors"


def same(folder: Path, model: VQModelHF) -> bool:
    loaded = VQModelHF.from_pretrained(folder)
    ours, wanted = loaded.state_dict(), model.state_dict()
    return ours.keys() == wanted.keys() and all(torch.equal(ours[name], wanted[name]) for name in wanted)


def test_a_checkpoint_of_a_training_run_becomes_a_folder_that_loads(tmp_path, theirs, model):
    ema = {name: weight + 1 if weight.is_floating_point() else weight for name, weight in theirs.items()}
    checkpoint = {"model": theirs, "ema": ema, "optimizer": {"state": {}}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "model.pt")
    report = convert("made_up", tmp_path / "model.pt", output_dir=tmp_path / "a" / "out")
    assert same(tmp_path / "a" / "out", model)
    assert {path.name for path in (tmp_path / "a" / "out").iterdir()} == FILES
    assert report.read == {"model": len(theirs)}
    assert report.dropped == {"loss": 2, "step": 1}
    assert report.others == ("ema", "optimizer", "epoch")
    assert report.weights == len(theirs) - 3
    text = str(report)
    for said in (
        f"Read {len(theirs)} tensors of 'model' in {tmp_path}/model.pt",
        "the project's defaults", "Dropped 3 of them: loss 2, step 1", "Not looked at: ema, optimizer, epoch",
        f"Kept {len(theirs) - 3} as {len(theirs) - 3} weights of VQConfig with SimpleCNNConfig at 32 pixels",
        "nothing is left over", f"Wrote the tokenizer to {tmp_path}/a/out",
    ):  # fmt: skip
        assert said in text
    card = (tmp_path / "a" / "out" / "README.md").read_text()
    assert "from `model.pt`, a checkpoint of org/made-up" in card
    assert str(tmp_path) not in card
    assert "PSNR" not in card  # that another file of this name was measured says nothing

    report = convert(
        "made_up", tmp_path / "model.pt", output_dir=tmp_path / "ema", weights="ema", image_size=64
    )
    assert report.read == {"ema": len(theirs)}
    loaded = VQModelHF.from_pretrained(tmp_path / "ema")
    assert torch.equal(loaded.encoder.conv.bias, model.encoder.conv.bias + 1)
    assert loaded.config.image_size == 64


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"config.yaml": "model: {size: 64}", "other.yaml": "size: 16"}, 64),
        ({"model.yaml": "size: 64", "config.json": '{"size": 16}'}, 64),
        ({"model.yaml": "size: 64", "config.yaml": "size: 16"}, 64),  # named as the checkpoint
        ({"anything.yml": "size: 64", "config.json": '{"size": 16}'}, 64),
        ({"config.json": '{"model": [{"size": 64}]}', "other.json": '{"size": 16}'}, 64),
        ({"config.yaml": ""}, 32),
        ({}, 32),
    ],
)
def test_the_settings_beside_a_checkpoint_are_read(tmp_path, file, files, size):
    for name, text in files.items():
        (file.parent / name).write_text(text)
    for source in (file, file.parent):
        report = convert("made_up", source, output_dir=tmp_path / "out")
        assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == size
        assert (report.settings is None) == (not files)


def test_runs_of_taming_keep_their_settings_beside_the_folder(tmp_path, theirs):
    for name in ("checkpoints", "configs"):
        (tmp_path / name).mkdir()
    save_file(theirs, tmp_path / "checkpoints" / "last.safetensors")
    (tmp_path / "configs" / "2021-project.yaml").write_text("size: 16")
    assert locate(str(tmp_path / "checkpoints" / "last.safetensors")).settings.name == "2021-project.yaml"


def test_several_settings_are_listed_and_config_says_which(tmp_path, file):
    for name, size in (("a.yaml", 16), ("b.yaml", 64)):
        (file.parent / name).write_text(f"size: {size}")
    with pytest.raises(ValueError, match=r"several settings files \(a.yaml, b.yaml\): say which by --config"):
        convert("made_up", file, output_dir=tmp_path / "out")
    report = convert("made_up", file, output_dir=tmp_path / "out", config_file=file.parent / "b.yaml")
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64
    assert report.settings == str(file.parent / "b.yaml")


def test_a_family_without_settings_does_not_ask_which(tmp_path, file, monkeypatch):
    monkeypatch.setitem(FAMILIES, "made_up", dataclasses.replace(MADE_UP, needs_settings=False))
    for name, size in (("a.yaml", 16), ("b.yaml", 64)):
        (file.parent / name).write_text(f"size: {size}")
    report = convert("made_up", file, output_dir=tmp_path / "out")
    assert report.settings is None
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 32
    convert("made_up", file, output_dir=tmp_path / "out", config_file=file.parent / "b.yaml")
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64


def test_families_whose_projects_keep_settings_ask():
    asking = {name for name, family in FAMILIES.items() if family.needs_settings} - {"made_up"}
    assert FAMILIES.keys() - asking - {"made_up"} == {"llamagen", "fsq_pytorch", "maskgit_vqgan", "var"}


def test_the_arguments_in_a_checkpoint_are_its_settings(tmp_path, theirs):
    torch.save({"model": theirs, "args": Namespace(size=64)}, tmp_path / "model.pt")
    report = convert("made_up", tmp_path / "model.pt", output_dir=tmp_path / "out")
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64
    assert report.settings == "the arguments in the file"


def test_what_lies_beside_does_not_hide_the_arguments_in_a_checkpoint(tmp_path, theirs, monkeypatch):
    monkeypatch.setitem(FAMILIES, "made_up", dataclasses.replace(MADE_UP, needs_settings=False))
    torch.save({"model": theirs, "args": Namespace(size=64)}, tmp_path / "model.pt")
    (tmp_path / "other.yaml").write_text("size: 16")
    report = convert("made_up", tmp_path / "model.pt", output_dir=tmp_path / "out")
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64
    assert report.settings == "the arguments in the file"
    yaml = tmp_path / "other.yaml"
    convert("made_up", tmp_path / "model.pt", output_dir=tmp_path / "out", config_file=yaml)
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.mkdir [canary]", "could not determine a constructor"),
        ("- a\n- b", "hold one list"),
        ("a: [", "cannot be read"),
        ("a" * 10**6 + ": 1", "bytes"),
        ("a: &a [" + "[" * 2000 + "]" * 2000 + "]", "recursion"),
        (LAUGHS, "aliases"),
        ("a: &a [*a]", "aliases"),
    ],
)  # fmt: skip
def test_settings_that_attack_or_are_none_are_refused(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"^The settings .*config.yaml .*{said}"):
        load_settings(tmp_path / "config.yaml")
    assert not (tmp_path / "canary").exists()


def test_a_folder_with_several_checkpoints_wants_a_name(tmp_path, file):
    (file.parent / "other.ckpt").touch()
    assert locate(str(file.parent)).weights == file  # as transformers names it
    file.rename(file.parent / "a.safetensors")
    with pytest.raises(ValueError, match=r"several checkpoints \(a.safetensors, other.ckpt\): name one"):
        locate(str(file.parent))
    with pytest.raises(ValueError, match="holds no checkpoint"):
        locate(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"net.encoder.conv.bias": None}, "missing: encoder.conv.bias"),
        ({"net.extra": torch.ones(1), "other": torch.ones(1)}, "left over: extra, other"),
        (
            {"net.encoder.conv.bias": torch.ones(3)},
            r"of another shape: encoder.conv.bias \(3,\) instead of \(8,\)",
        ),
        ({"net.encoder.conv.bias": torch.full((4,), torch.nan)}, "not finite: encoder.conv.bias"),
        ({"net.quantizer.codebook": None}, "KeyError: 'net.quantizer.codebook'"),
        ({"net.quantizer.codebook": torch.ones(0, 4)}, "has no elements"),
    ],
)
def test_weights_that_do_not_fit_are_listed_and_nothing_is_left(tmp_path, theirs, changes, said):
    weights = {name: weight for name, weight in {**theirs, **changes}.items() if weight is not None}
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"does not convert as made_up: .*{said}") as refused:
        convert("made_up", tmp_path / "x.safetensors", output_dir=tmp_path / "new" / "out")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_wrong_family_is_one_line_that_names_the_right_one(tmp_path, file, family):
    with pytest.raises(ValueError, match=rf"does not convert as {family}; it does as made_up: ") as refused:
        convert(family, file, output_dir=tmp_path / "out")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_a_family_does_not_take_is_refused(tmp_path, file):
    with pytest.raises(
        ValueError, match="made_up does not take --levels; its options are --image_size, --weights"
    ):
        convert("made_up", file, output_dir=tmp_path / "out", levels=[8, 5])
    with pytest.raises(ValueError, match="There is no family 'made_u', only .*did you mean 'made_up'"):
        convert("made_u", file, output_dir=tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"weights": ""},
        {"levels": []},
        {"scales": ()},
        {"push_to_hub": ""},
        {"output_dir": ""},
        {"config_file": ""},
    ],
    ids=str,
)
def test_an_option_of_0_or_nothing_is_no_default(tmp_path, file, options):
    name = next(iter(options)).removesuffix("_file")
    with pytest.raises(ValueError, match=f"^Expected a value of {name}, or none at all; got "):
        convert("made_up", file, **{"output_dir": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_is_replaced_and_nothing_else_is(tmp_path, file, model):
    out = tmp_path / "out"
    out.mkdir()
    convert("made_up", file, output_dir=out)  # an empty folder is as good as none
    convert("made_up", file, output_dir=out, image_size=64)
    assert VQModelHF.from_pretrained(out).config.image_size == 64
    assert {path.name for path in out.iterdir()} == FILES
    with pytest.raises(ValueError, match="is a vistok tokenizer already"):
        convert("made_up", out, output_dir=tmp_path / "b")

    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds what is not of a vistok tokenizer \(notes.txt\)"):
        convert("made_up", file, output_dir=out)
    (out / "notes.txt").unlink()
    for config in ('{"model_type": "bert", "of": "vistok_vq"}', "[]", "{"):
        (out / "config.json").write_text(config)
        with pytest.raises(ValueError, match=r"not of a vistok tokenizer \(README.md, config.json, "):
            convert("made_up", file, output_dir=out)
    with pytest.raises(ValueError, match="is a file"):
        convert("made_up", file, output_dir=file)


def test_a_checkpoint_is_never_written_over(tmp_path, file):
    before = file.read_bytes()
    (tmp_path / "link").symlink_to(file.parent)
    for source in (file, file.parent, tmp_path / "link" / file.name):
        for folder in (file.parent, tmp_path / "link"):
            with pytest.raises(ValueError, match="choose a new folder"):
                convert("made_up", source, output_dir=folder)
    (file.parent / ".tmp-convert").mkdir()  # as if a killed conversion had made the folder
    with pytest.raises(ValueError, match="holds the checkpoint itself: choose a new folder"):
        convert("made_up", file, output_dir=file.parent)
    assert file.read_bytes() == before


def test_what_a_killed_conversion_left_is_written_over(tmp_path, file, model):
    out = tmp_path / "out"
    (out / ".tmp-convert").mkdir(parents=True)
    (out / ".tmp-convert" / "model.safetensors").write_bytes(b"half")
    (out / "model.safetensors").write_bytes(b"half")
    convert("made_up", file, output_dir=out)
    assert same(out, model)
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_conversion_that_fails_leaves_what_was_there(tmp_path, file, model, monkeypatch, error):
    convert("made_up", file, output_dir=tmp_path / "old")
    save = VQModelHF.save_pretrained

    def fail(self, folder, **kwargs):
        save(self, folder, **kwargs)
        raise error

    monkeypatch.setattr(VQModelHF, "save_pretrained", fail)
    for folder in (tmp_path / "old", tmp_path / "new" / "out"):
        expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError
        with pytest.raises(expected) as failed:
            convert("made_up", file, output_dir=folder, image_size=64)
        if expected is ValueError:
            assert str(failed.value).startswith(f"Could not write to {folder}: ")
            assert "MB are free" in str(failed.value)
    assert not (tmp_path / "new").exists()
    assert {path.name for path in (tmp_path / "old").iterdir()} == FILES
    assert VQModelHF.from_pretrained(tmp_path / "old").config.image_size == 32


def write_shards(weights: dict[str, torch.Tensor], folder: Path) -> None:
    names = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    weight_map = {key: names[place % 2] for place, key in enumerate(weights)}
    for name in names:
        save_file({key: weight for key, weight in weights.items() if weight_map[key] == name}, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_checkpoint_in_several_files_is_one(tmp_path, theirs, model):
    (tmp_path / "shards").mkdir()
    write_shards(theirs, tmp_path / "shards")
    for source in ("shards", "shards/model.safetensors.index.json"):
        report = convert("made_up", tmp_path / source, output_dir=tmp_path / "out")
        assert same(tmp_path / "out", model)
        assert report.read == {"": len(theirs)}
    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ValueError, match="names model-00002-of-00002.safetensors, which is not there: download it too$"
    ):
        convert("made_up", tmp_path / "shards", output_dir=tmp_path / "out")


def test_a_checkpoint_in_several_files_on_the_hub_is_one(tmp_path, theirs, model, hub, monkeypatch):
    (tmp_path / "shards").mkdir()
    write_shards(theirs, tmp_path / "shards")
    HfApi().create_repo("org/shards")
    HfApi().upload_folder(repo_id="org/shards", folder_path=tmp_path / "shards")
    convert("made_up", "org/shards", output_dir=tmp_path / "out")
    assert same(tmp_path / "out", model)

    def unreachable(*_, **__):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    convert("made_up", "org/shards", output_dir=tmp_path / "out2")
    assert same(tmp_path / "out2", model)


@pytest.fixture(scope="module")
def repository(hub, theirs, tmp_path_factory):
    """`org/theirs` with two checkpoints, and `org/folder` with one."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "sub").mkdir()
    torch.save({"model": theirs}, folder / "sub" / "model.pt")
    (folder / "sub" / "config.yaml").write_text("size: 64")
    (folder / "config.yaml").write_text("size: 16")
    for name in ("one", "two"):
        save_file(theirs, folder / f"{name}.safetensors")
    HfApi().create_repo("org/theirs")
    HfApi().upload_folder(repo_id="org/theirs", folder_path=folder)
    save_file(theirs, folder / "sub" / "model.safetensors")
    (folder / "sub" / "config.json").write_text('{"size": 64}')
    HfApi().create_repo("org/folder")
    HfApi().upload_folder(
        repo_id="org/folder", folder_path=folder / "sub", allow_patterns=["*.json", "*.safetensors"]
    )
    return hub


def test_a_hub_id_with_a_file_is_downloaded_with_the_settings_beside_it(tmp_path, repository):
    report = convert("made_up", "org/theirs/sub/model.pt", output_dir=tmp_path / "out")
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64
    assert (report.source, Path(report.settings).name) == ("org/theirs/sub/model.pt", "config.yaml")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`org/theirs/sub/model.pt`" in card
    assert "Its authors report PSNR 20." in card
    before = len(repository.log)
    convert("made_up", "org/theirs/sub/model.pt", output_dir=tmp_path / "out")
    assert not [line for line in repository.log[before:] if line.startswith("GET") and "/resolve/" in line]


def test_a_hub_id_of_a_folder_is_downloaded(tmp_path, repository, model):
    report = convert("made_up", "org/folder", output_dir=tmp_path / "out")
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64
    assert report.source == "org/folder"


def test_without_a_network_the_cache_serves(tmp_path, repository, monkeypatch):
    for source in ("org/folder", "org/theirs/sub/model.pt"):
        convert("made_up", source, output_dir=tmp_path / "out")

    def unreachable(*_, **__):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    for source in ("org/folder", "org/theirs/sub/model.pt"):
        assert convert("made_up", source, output_dir=tmp_path / "out").source == source
        assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64
    with pytest.raises(ValueError, match=r"org/never/x.pt is no file or folder here, nor .*nobody there"):
        convert("made_up", "org/never/x.pt", output_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "org/theirs",
            r"org/theirs holds several checkpoints \(one.safetensors, two.safetensors\): name one",
        ),
        ("org/theirs/sub/other.pt", r"no file sub/other.pt; its checkpoints are: .*sub/model.pt"),
        ("org/nowhere/model.pt", "org/nowhere/model.pt is no file or folder here, and the Hub shows you no"),
        ("run/last.ckpt", "There is no file or folder run/last.ckpt"),
        ("nowhere", "There is no file or folder nowhere"),
        ("/nowhere/at/all.pt", "There is no file or folder /nowhere/at/all.pt"),
        ("../x/y/z.pt", "There is no file or folder ../x/y/z.pt"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, repository, source, said):
    with pytest.raises(ValueError, match=said) as refused:
        convert("made_up", source, output_dir=tmp_path / "out")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_gated_repository_says_so(tmp_path, file, hub):
    HfApi().create_repo("org/closed")
    HfApi().upload_folder(repo_id="org/closed", folder_path=file.parent)
    hub.repos["model", "org/closed"].gated = True
    for source in ("org/closed", "org/closed/model.safetensors"):
        with pytest.raises(
            ValueError, match="org/closed is gated: ask for access at .*, then `hf auth login`"
        ):
            convert("made_up", source, output_dir=tmp_path / "out")


def test_it_can_be_pushed(tmp_path, file, hub, model):
    report = convert("made_up", file, output_dir=tmp_path / "out", push_to_hub="org/converted")
    [commit] = hub.commits("org/converted")
    assert commit.added == FILES
    assert commit.title == f"Convert {file.name}"
    assert report.address == f"{hub.url}/org/converted/commit/{commit.oid}"
    assert report.address in str(report)
    card = commit.files["README.md"].decode()
    assert 'VQModelHF.from_pretrained("org/converted")' in card
    assert "a checkpoint of org/made-up" in card
    assert same("org/converted", model)
    convert("made_up", file, output_dir=tmp_path / "other", push_to_hub="org/converted")
    assert "README.md" not in hub.commits("org/converted")[1].added  # somebody may have written it


def test_a_push_that_cannot_be_is_said_before_anything_is_done(tmp_path, file, hub, monkeypatch):
    with pytest.raises(ValueError, match="--push_to_hub a b: "):
        convert("made_up", file, output_dir=tmp_path / "out", push_to_hub="a b")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ValueError, match="--push_to_hub org/x: .*hf auth login"):
        convert("made_up", file, output_dir=tmp_path / "out", push_to_hub="org/x")
    assert not (tmp_path / "out").exists()


def test_a_push_that_fails_keeps_the_folder(tmp_path, file, hub, model, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("gone")

    monkeypatch.setattr(conversion, "upload_tokenizer", fail)
    with pytest.raises(
        ValueError, match="Wrote the tokenizer to .*out, but could not push it to org/x: gone"
    ):
        convert("made_up", file, output_dir=tmp_path / "out", push_to_hub="org/x")
    assert same(tmp_path / "out", model)


def test_the_command_converts_and_reports(tmp_path, file, capsys):
    words = [
        "made_up",
        str(file),
        "--output_dir",
        str(tmp_path / "out"),
        "--weights",
        "raw",
        "--image_size",
        "64",
    ]
    assert main(["convert", *words]) == 0
    assert "nothing is left over" in capsys.readouterr().out
    assert VQModelHF.from_pretrained(tmp_path / "out").config.image_size == 64


def test_the_command_lists_every_published_checkpoint(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "--list"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "FAMILY",
        "SOURCE",
        "AND",
        "FLAGS",
        "WHAT",
        "IT",
        "IS",
        "PUBLISHED",
        "FIGURES",
    ]
    assert len(lines) == 1 + sum(len(family.published) for family in FAMILIES.values())
    assert {line.split()[0] for line in lines[1:]} == FAMILIES.keys()
    assert sum("org/theirs/sub/model.pt" in line and "PSNR 20" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["made_up", "x.pt", "--output_dir", "out"], "There is no file or folder x.pt"),
        (["made_up", "model.pt", "--output_dir", "out"], "model.pt asks for posix.system"),
        (["made_up", "model.pt", "--output_dir", "out", "--config", "x.yaml"], "there is no file x.yaml"),
        (["nothing", "model.pt", "--output_dir", "out"], "There is no family 'nothing'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write_system_call(Path("model.pt"), tmp_path / "canary")
    assert main(["convert", *words]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vistok convert: ")
    assert said in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_families_are_named_as_their_files_and_complete():
    for name, family in FAMILIES.items():
        assert family.name == name
        assert family.project
        assert family.published
    folder = Path(conversion.__file__).parent
    defined = {path.stem for path in folder.glob("*.py") if "FAMILY = Family(" in path.read_text()}
    assert defined == FAMILIES.keys() - {"made_up"}
