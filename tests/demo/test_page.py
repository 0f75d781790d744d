"""The running page through its API and over plain HTTP, as friends and strangers use it."""

import base64
import json
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from odd_images import black_bomb, chunk, odd_images, png
from PIL import Image
from serving import ROOT, Served

from vistok.demo.gate import MOST_WAITING, QUEUE_FULL
from vistok.demo.reconstruction import reconstruct
from vistok.demo.uploads import MAX_BYTES, MIN_SIDE, MISUNDERSTOOD

HTTP = httpx.Client(timeout=60, verify=False)  # one for all: each would load the certificates anew
FOREIGN = "this page takes no addresses, no paths and no pasted data"


@pytest.fixture(scope="module")
def client(page):
    return Client(page.url, verbose=False, download_files=False)


@pytest.fixture(scope="module")
def photo(photograph, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    photograph.save(path)
    return str(path)


def fetch(page: Served, answer) -> Image.Image:
    path = answer["path"] if isinstance(answer, dict) else answer
    return Image.open(HTTP.get(f"{page.url}/gradio_api/file={path}").raise_for_status()).convert("RGB")


def upload(page: Served, data: bytes, name: str = "picture.png") -> httpx.Response:
    return HTTP.post(f"{page.url}/gradio_api/upload", files={"files": (name, data)})


def call(page: Served, endpoint: str, data: list) -> dict | str:
    """Calls an endpoint by plain HTTP: its result, or its sentence."""
    url = f"{page.url}/gradio_api/call/{endpoint}"
    with httpx.Client(timeout=60, verify=False) as http:  # its own: threads call this too
        answer = http.post(url, json={"data": data})
        if answer.status_code != 200:
            return answer.json()["detail"]
        stream = http.get(f"{url}/{answer.json()['event_id']}").text
    kind, content = re.findall(r"event: (complete|error)\ndata: (.*)", stream)[-1]
    content = json.loads(content)
    return content if kind == "complete" else content["error"]


def picture_at(path: str, **more) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def assert_private(page: Served, text: str) -> None:
    """No path, no trace and no name of a library in what a visitor is told."""
    for secret in (
        str(ROOT),
        str(page.folder),
        str(Path.home()),
        "site-packages",
        "Traceback",
        ".py",
        "Error(",
    ):
        assert secret not in text, text


def test_there_are_three_named_endpoints(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert named.keys() == {"/reconstruct", "/tokenize", "/decode"}
    parameters = {name: [one["parameter_name"] for one in api["parameters"]] for name, api in named.items()}
    assert parameters["/reconstruct"] == parameters["/tokenize"] == ["image", "tokenizer", "size"]
    assert parameters["/decode"] == ["tokens", "tokenizer"]


def test_reconstruct_is_the_librarys(page, client, tokenizers, photograph, photo):
    picture, numbers = client.predict(handle_file(photo), "grid", 128, api_name="/reconstruct")
    expected = reconstruct(tokenizers["grid"], photograph, 128)
    assert np.abs(np.asarray(fetch(page, picture), int) - np.asarray(expected.picture, int)).max() <= 1
    assert numbers["psnr"] == pytest.approx(expected.numbers["psnr"], abs=1e-3)
    assert numbers.keys() == expected.numbers.keys()


@pytest.mark.parametrize("name", ["grid", "residual", "sequence"])
def test_tokens_go_out_and_come_back(page, client, tokenizers, photograph, photo, name):
    tokens = client.predict(handle_file(photo), name, api_name="/tokenize")
    expected = reconstruct(tokenizers[name], photograph)
    assert np.array_equal(tokens["tokens"], expected.tokens)
    picture = fetch(page, client.predict(tokens, api_name="/decode"))
    assert picture.size == expected.picture.size == (tokens["width"], tokens["height"])
    assert np.abs(np.asarray(picture, int) - np.asarray(expected.picture, int)).max() <= 1
    alone = fetch(page, client.predict(tokens["tokens"], name, api_name="/decode"))
    assert alone.size >= picture.size  # with its padding


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([1, 2], "Expected tokens of rank 3, such as (B, 8, 8), got (1, 2)"),
        (
            [[1, 1000]],
            "Expected tokens in [0, 1000), got 1000 at position [0, 0, 1]; are they from another tokenizer?",
        ),
        (
            [[-1]],
            "Expected tokens in [0, 1000), got -1 at position [0, 0, 0]; are they from another tokenizer?",
        ),
        ([[1.5]], "Expected integer tokens, got torch.float64"),
        ([[True]], "Expected integer tokens, got torch.bool"),
        ([["1"]], 'Expected tokens that are whole numbers below 2^63, got "1"'),
        ([[1], [2, 3]], "Expected tokens in lists of one length each, got ragged lists"),
        ({"tokens": [[1]], "tokenizer": 5, "height": "x"}, "height must be a whole number of at least 1"),
        ([], "Expected tokens, got none"),
        (None, "got null"),
        ([[0] * 300] * 300, "Expected at most 65,536 tokens here, got 90,000"),
    ],
)
def test_wrong_tokens_are_refused_in_one_sentence(page, client, tokens, said):
    with pytest.raises(AppError) as refused:
        client.predict(tokens, "grid", api_name="/decode")
    assert said in str(refused.value)
    assert_private(page, str(refused.value))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("nobody", 128),
            "There is no tokenizer 'nobody' here; there are: grid, residual, sequence, transport, continuous",
        ),
        (("sequence", 128), "sequence takes pictures of 40 pixels, got 128"),
        (("grid", 127), "grid takes pictures of 32, 128, 256, 384, 512 pixels, got 127"),
        (("grid", 10**9), "got 1000000000"),
        (("continuous", 32), "continuous makes no tokens"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(client, photo, arguments, said):
    with pytest.raises(AppError, match=re.escape(said)):
        client.predict(handle_file(photo), *arguments, api_name="/tokenize")


@pytest.mark.parametrize("kind", odd_images(), ids=lambda kind: kind.name)
def test_odd_pictures_are_read_or_refused(page, kind):
    (path,) = upload(page, kind.data, kind.name).json()
    began = time.perf_counter()
    answer = call(page, "tokenize", [picture_at(path), "sequence", 0])
    seconds = time.perf_counter() - began
    readable = isinstance(kind.expected, tuple) and min(kind.expected) >= MIN_SIDE
    assert isinstance(answer, list if readable else str), answer
    if not readable:
        assert re.fullmatch(r"(The|This) [^\n]+\.", answer)
        assert_private(page, answer)
        assert seconds < 1


HUGE = {
    "100 megapixels": lambda: black_bomb(10_000),
    "400 megapixels": lambda: black_bomb(20_000),
    "80 MB of text": lambda: png(
        64, 64, zlib.compress(bytes(64 * 193)), 8, 2,
        extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_bombs_cost_no_memory(page, name):
    (path,) = upload(page, HUGE[name]()).json()
    before, began = page.memory(), time.perf_counter()
    answer = call(page, "tokenize", [picture_at(path), "sequence", 0])
    assert time.perf_counter() - began < 1
    assert page.memory() - before < 64 * 2**20
    if name == "80 MB of text":  # which no pixel needs: it is never inflated
        assert isinstance(answer, list)
    else:
        assert answer == "The picture has more than 25 megapixels: make it smaller."


def test_uploads_have_a_limit(page):
    before = page.memory()
    answer = upload(page, bytes(MAX_BYTES + 2**20))
    assert answer.status_code == 413
    assert "10 MB" in answer.json()["detail"]
    assert page.memory() - before < 64 * 2**20


def test_uploads_that_declare_no_length_have_it_too(page):
    before, boundary = page.memory(), b"--x\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n"
    stream = (part for part in [boundary, *[bytes(2**20)] * 40, b"\r\n--x--\r\n"])
    headers = {"content-type": "multipart/form-data; boundary=x"}
    try:
        answer = HTTP.post(f"{page.url}/gradio_api/upload", content=stream, headers=headers)
    except httpx.TransportError:  # the server hung up while we were still sending
        pass
    else:
        assert answer.status_code == 413
    assert page.memory() - before < 64 * 2**20
    assert sum(path.stat().st_size for path in page.cached() if path.name == "a") == 0


def test_data_urls_have_a_limit_and_are_refused_below_it(page):
    data = "data:image/png;base64," + base64.b64encode(bytes(12 * 2**20)).decode()
    before = page.memory()
    large = call(page, "tokenize", [picture_at("", url=data), "", 0])
    assert large == "The request has more than 2 MB, the most that is taken here."
    assert page.memory() - before < 64 * 2**20
    assert FOREIGN in call(page, "tokenize", [picture_at("", url=data[:1000]), "", 0])
    assert FOREIGN in call(page, "tokenize", [{"path": None, "url": data[:1000]}, "", 0])


@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1:1/a.png", "https://example.com/a.png", "HTTP://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png", "ftp://example.com/a.png", "file:///etc/passwd", "gopher://x/", "//a.com/a",
        "data:image/png;base64,AAAA", "/etc/passwd", "../../../../etc/passwd", "/proc/self/environ",
        "C:\\windows\\win.ini", "\0", "", "~/.ssh/id_rsa",
    ],
)  # fmt: skip
def test_addresses_and_paths_are_refused(page, path):
    for data in ([picture_at(path), "", 0], [picture_at(path, url=path), "", 0]):
        assert FOREIGN in call(page, "tokenize", data)
    assert FOREIGN in call(page, "decode", [{"tokens": [[picture_at(path)]]}, ""])  # in any input


def test_a_path_beside_the_uploads_is_refused(page):
    (path,) = upload(page, b"x").json()
    folder = str(Path(path).parents[1])
    for other in (f"{folder}/../../etc/passwd", f"{folder}-other/x", folder, f"{folder}/nothing.png"):
        answer = call(page, "tokenize", [picture_at(other), "", 0])
        assert answer.startswith(("Upload the file", "The upload is no longer there")), answer
        assert_private(page, answer)


@pytest.mark.parametrize(
    "name",
    ["../../../evil.png", "..\\..\\evil.png", "/etc/cron.d/evil", "a\0b.png", "x" * 300, ".", "é☃.png"],
)
def test_names_of_uploads_lead_nowhere(page, name):
    answer = upload(page, b"\x89PNG", name)
    assert answer.status_code in (200, 400, 422)
    written = [path for path in page.folder.parent.rglob("*evil*") if page.folder not in path.parents]
    assert written == []
    if answer.status_code == 200:
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(page.folder)


@pytest.mark.parametrize(
    "route",
    [
        "file=/etc/passwd", "file=../../etc/passwd", "file=http://127.0.0.1:1/", "file=https:/example.com/a",
        "proxy=http://127.0.0.1:1/", "proxy=https://x.hf.space/a", "deep_link", "runs", "monitoring",
        "vibe-code/", "user", "token", "component_server/", "stream/x/y/1/playlist-file",
    ],
)  # fmt: skip
def test_no_other_route_is_open(page, route):
    answer = HTTP.get(f"{page.url}/gradio_api/{route}")
    assert answer.status_code in (403, 404)
    assert_private(page, answer.text)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"data": 5}',
        '{"data": []}',
        '{"data": [1, 2, 3, 4, 5]}',
        '{"data": [1, 2, 3]}',
        '{"data": [null, {"a": 1}, "x"]}',
        '{"data": [null, "", 1e400]}',
        '{"data": [null, "", 0]}',
        "[" * 10_000,
    ],
)
def test_broken_requests_are_refused(page, body):
    headers = {"content-type": "application/json"}
    answer = HTTP.post(f"{page.url}/gradio_api/call/tokenize", content=body, headers=headers)
    if answer.status_code == 200:
        answer = HTTP.get(f"{page.url}/gradio_api/call/tokenize/{answer.json()['event_id']}")
        assert "event: error" in answer.text
        assert MISUNDERSTOOD in answer.text or "There is no image" in answer.text
    else:
        assert 400 <= answer.status_code < 500
    assert_private(page, answer.text)


def test_two_hundred_at_once_fail_by_a_full_queue_alone(page, photo):
    data = [picture_at(upload(page, Path(photo).read_bytes()).json()[0]), "grid", 128]
    with ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(lambda _: call(page, "reconstruct", data), range(200)))
    refused = {answer for answer in answers if isinstance(answer, str)}
    assert refused <= {QUEUE_FULL}
    assert refused, "the queue was never full: this test is too gentle"
    assert sum(isinstance(answer, list) for answer in answers) >= MOST_WAITING
    assert page.memory() < 2 * 2**30


def test_the_page_names_no_folder_of_the_server(page, client, photo):
    for route in ("/", "/config", "/gradio_api/info"):
        text = HTTP.get(page.url + route).text
        for secret in (str(ROOT), str(Path.home()), "site-packages"):
            assert secret not in text


def test_the_page_needs_nothing_from_elsewhere(page):
    text = HTTP.get(page.url).text + HTTP.get(f"{page.url}/theme.css").text
    assert "fonts.googleapis.com/css" not in text


def test_it_is_alive_and_quiet_after_all_that(page, client, photo):
    assert client.predict(handle_file(photo), "sequence", api_name="/tokenize")["tokenizer"] == "sequence"
    assert "Traceback" not in page.log.read_text()
