"""The gate alone, before an app that takes everything."""

import asyncio
import json

import pytest

from vistok.demo import gate
from vistok.demo.gate import DISK_FULL, MAX_BODY, MAX_UPLOAD, QUEUE_FULL, Gate


def ask(folder, path, method="POST", body=b"", length=None, status=200, parts=None):
    """What an app behind the gate got of a request, and what the visitor got: status and text."""
    got, sent = [], []
    parts = parts or [body[start : start + 2**20] for start in range(0, len(body), 2**20)] or [b""]

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            got.append(message["body"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"Max size is 64"})

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "path": path, "method": method, "headers": headers}
    asyncio.run(Gate(app, str(folder))(scope, receive, send))
    return b"".join(got), sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("HEAD", "/"), ("GET", "/config"), ("GET", "/gradio_api/file=/tmp/a.png"),
        ("GET", "/gradio_api/queue/data"), ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/upload"),
    ],
)  # fmt: skip
def test_the_routes_of_the_page_are_open(tmp_path, method, path):
    assert ask(tmp_path, path, method)[1] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/queue/join"), ("POST", "/"), ("DELETE", "/"), ("GET", "/gradio_api/proxy=http://x"),
        ("GET", "/gradio_api/file=http://x/"), ("GET", "/gradio_api/file=https:/x/"), ("GET", "//"),
        ("GET", "/gradio_api/monitoring"), ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run/0"),
    ],
)  # fmt: skip
def test_others_are_closed(tmp_path, method, path):
    got, status, text = ask(tmp_path, path, method)
    assert (got, status) == (b"", 404)
    assert json.loads(text) == {"detail": "There is no such page."}


@pytest.mark.parametrize(
    ("path", "limit"), [("/gradio_api/queue/join", MAX_BODY), ("/gradio_api/upload", MAX_UPLOAD)]
)
@pytest.mark.parametrize("declared", [True, False])
def test_bodies_have_a_limit(tmp_path, path, limit, declared):
    got, status, _ = ask(tmp_path, path, body=bytes(limit), length=limit if declared else None)
    assert (len(got), status) == (limit, 200)
    got, status, text = ask(tmp_path, path, body=bytes(limit + 1), length=limit + 1 if declared else None)
    assert (len(got), status) == (0 if declared else limit // 2**20 * 2**20, 413)
    assert f"more than {limit // 2**20} MB" in text


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_its_limit_is_read_to_its_end_but_not_for_ever(tmp_path, declared, monkeypatch):
    monkeypatch.setattr(gate, "MOST_DRAINED", 3 * 2**20)

    def parts_left(mega):
        parts = [bytes(2**20)] * mega
        length = len(parts) * 2**20 if declared else None
        status = ask(tmp_path, "/gradio_api/queue/join", parts=parts, length=length)[1]
        return status, len(parts)

    assert parts_left(4) == (413, 0)
    assert parts_left(20) == (413, 20 - 2 - 3)


def test_a_full_queue_is_said_in_our_words(tmp_path):
    _, status, text = ask(tmp_path, "/gradio_api/queue/join", status=503)
    assert status == 503
    assert json.loads(text) == {"detail": QUEUE_FULL}


def test_a_full_disk_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "MOST_KEPT", 1000)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "picture.png").write_bytes(bytes(1001))
    got, status, text = ask(tmp_path, "/gradio_api/upload")
    assert (got, status, json.loads(text)) == (b"", 507, {"detail": DISK_FULL})
    assert ask(tmp_path, "/", "GET")[1] == 200
