"""The Space's folder is what Hugging Face expects: a header, requirements, an app that starts."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces" / "reconstruct"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def header() -> dict:
    text = (SPACE / "README.md").read_text()
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def test_the_header_is_one_that_the_hub_takes():
    fields = header()
    assert fields["sdk"] == "gradio"
    assert (SPACE / fields["app_file"]).is_file()
    assert {fields["colorFrom"], fields["colorTo"]} <= COLOURS
    assert len(fields["short_description"]) <= 60  # the Hub's limit
    assert fields["license"] == "apache-2.0"


def test_its_gradio_is_the_one_that_is_tested():
    assert f"gradio=={header()['sdk_version']}\n" in (ROOT / "constraints.txt").read_text()


def test_it_installs_vistok_with_what_the_page_needs():
    (line,) = (SPACE / "requirements.txt").read_text().splitlines()
    assert re.match(r"vistok\[space\] @ git\+https://", line)


def test_it_is_no_package_and_holds_no_logic():
    assert not (SPACE / "__init__.py").exists()
    assert not (SPACE.parent / "__init__.py").exists()
    assert [path.name for path in SPACE.glob("*.py")] == ["app.py"]
    assert len((SPACE / "app.py").read_text().splitlines()) < 30


def test_zero_gpu_lends_its_gpu_to_what_computes(monkeypatch):
    from vistok.demo.context import Context

    lent = []

    def gpu(function):
        lent.append(function.__name__)
        return function

    def compute():
        raise ValueError("no such thing")

    Context({}, gpu).on(compute, inputs=[], outputs=[])
    assert lent == ["compute"]
