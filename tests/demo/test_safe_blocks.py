"""What the app does of itself: deletes, gives up, and keeps its troubles to itself."""

import time
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from serving import serve

from vistok.demo.safe_blocks import BROKEN

# A small app, which keeps files for a second and works for half of one.
APP = """
import time
import gradio as gr
from vistok.demo import safe_blocks
safe_blocks.CACHE_SECONDS, safe_blocks.MOST_SECONDS = 1, 0.5

def fail(text: str) -> str:
    raise RuntimeError("secret " + safe_blocks.__file__)

def sleep(text: str) -> str:
    time.sleep(2)
    return text

with safe_blocks.SafeBlocks("small") as page:
    text = gr.Textbox()
    for function in (fail, sleep):
        gr.Button().click(function, text, text, api_name=function.__name__)
page.launch(quiet=True)
"""


@pytest.fixture(scope="module")
def app():
    with serve([], command=["-c", APP]) as served:
        yield served


def test_uploads_are_deleted(app):
    (path,) = httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("a.png", b"x")}).json()
    assert Path(path).read_bytes() == b"x"
    assert Path(path).is_relative_to(app.folder)
    deadline = time.monotonic() + 10
    while Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert app.cached() == []


def test_troubles_stay_in_the_log(app):
    with pytest.raises(AppError) as told:
        Client(app.url, verbose=False).predict("", api_name="/fail")
    assert str(told.value) == BROKEN
    assert "RuntimeError: secret" in app.log.read_text()


def test_long_work_is_given_up(app):
    began = time.monotonic()
    with pytest.raises(AppError, match=r"more than 0\.5 seconds: choose a smaller size"):
        Client(app.url, verbose=False).predict("", api_name="/sleep")
    assert time.monotonic() - began < 1.9


def test_nothing_stays_when_it_is_stopped(app):
    httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("b.png", b"x")}).raise_for_status()
    app.process.terminate()
    app.process.wait(30)
    assert app.cached() == []
