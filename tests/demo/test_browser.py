"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import json
import shutil
import time

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt-get install chromium fonts-liberation", allow_module_level=True)

ENOUGH = 5000  # milliseconds, for anything that a visitor does on 2 cores
PHONE = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, page):
    """Opens the page; at the end, nothing must have gone wrong or off this machine."""
    contexts, troubles, abroad = [], [], []

    def open_page(**options):
        context = browser.new_context(**(options or DESKTOP))
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("response", lambda answer: troubles.append(answer.url) if answer.status >= 400 else None)
        tab.on("request", lambda asked: abroad.append(asked.url) if not local(asked.url) else None)
        tab.goto(page.url)
        tab.locator("#numbers .tile").first.wait_for()
        return tab

    def local(url):
        return url.startswith((page.url, "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
    assert abroad == []


def said(tab, place, text):
    """Waits until a part of the page says something, as long as a visitor would."""
    sync_api.expect(tab.locator(place)).to_contain_text(text, timeout=ENOUGH)


def shows(tab, *places):
    """Waits until parts of the page show a picture that has loaded."""
    for place in places:
        picture = tab.locator(f"{place} img").first
        picture.scroll_into_view_if_needed(timeout=ENOUGH)
        tab.wait_for_function("img => img.complete && img.naturalWidth > 0", arg=picture.element_handle())


def test_a_visit(visit, photograph, tmp_path):
    photograph.save(tmp_path / "cat.png")
    tab = visit()
    tab.get_by_role("radio", name="128 px").check()
    said(tab, "#numbers", "32×32")  # the square example

    began = time.monotonic()
    tab.set_input_files("#picture input[type=file]", tmp_path / "cat.png")
    said(tab, "#numbers", "32×48")
    said(tab, "#use", "of 1,000 entries are used")
    shows(tab, "#original", "#reconstruction", "#difference", "#tokens", "#wipe")
    assert time.monotonic() - began < ENOUGH / 1000

    box = tab.locator("#tokens img").bounding_box()
    middle = {"x": box["width"] / 2 + 2, "y": box["height"] / 2 + 2}  # where no two tokens meet
    tab.locator("#tokens img").click(position=middle)
    said(tab, "#card", "row 17 of 32, column 25 of 48")
    said(tab, "#card", "4 channels")
    said(tab, "#effect", "at 1 place: the picture changes in")
    shows(tab, "#token-map", "#token-picture", "#replaced", "#close-up")
    tab.get_by_role("radio", name="a random token").check()
    tab.get_by_role("radio", name="wherever it occurs").check()
    said(tab, "#effect", "place")

    tab.get_by_role("tab", name="Compare").click()
    tab.get_by_role("checkbox", name="sequence").uncheck()
    tab.locator("#compare").click()
    said(tab, "#table", "residual")
    assert tab.locator("#table tbody tr").count() == 2

    tab.get_by_role("tab", name="Take away").click()
    with tab.expect_download() as download:
        tab.locator("#download-json").click()
    download.value.save_as(tmp_path / "tokens.json")
    content = json.loads((tmp_path / "tokens.json").read_text())
    assert (content["height"], content["width"], len(content["tokens"])) == (128, 192, 32)
    tab.set_input_files("#tokens-file input[type=file]", tmp_path / "tokens.json")
    said(tab, "#decoded-says", "32 × 48 tokens of grid give 192 × 128 pixels")
    shows(tab, "#decoded")


def test_every_kind_of_tokenizer_is_shown(visit):
    tab = visit()

    def choose(name):
        tab.get_by_role("tab", name="See").click()
        tab.get_by_label("Tokenizer").click()
        tab.get_by_role("option", name=name).click()

    choose("residual")
    said(tab, "#numbers", "3×64×64")
    tab.get_by_role("tab", name="Understand").click()
    said(tab, "#kept", "1 of 3 codebooks, 33% of the bits")
    shows(tab, "#kept-picture")
    choose("sequence")
    said(tab, "#numbers", "tokens: 6")
    tab.get_by_role("tab", name="Understand").click()
    said(tab, "#card", "it has no place")
    choose("transport")
    said(tab, "#numbers", "2×64×64")
    tab.get_by_role("tab", name="Understand").click()
    said(tab, "#assignment", "By optimal transport")
    tab.get_by_role("tab", name="See").click()
    tab.locator("#tokens img").click(position={"x": 100, "y": 100})
    tab.locator("#codebook input").fill("2")
    tab.locator("#codebook input").press("Enter")
    said(tab, "#card", "2 of 2")
    tab.get_by_role("tab", name="See").click()
    tab.locator("#tokens img").click()  # where the first codebook is drawn
    said(tab, "#card", "1 of 2")
    choose("continuous")
    said(tab, "#use", "makes no tokens")
    tab.get_by_role("tab", name="Understand").click()
    said(tab, "#card", "continuous makes no tokens")
    sync_api.expect(tab.locator("#token-map img")).to_have_count(0, timeout=ENOUGH)


def test_the_last_of_quick_clicks_wins_and_empties_what_was_compared(visit):
    tab = visit()
    tab.get_by_role("tab", name="Compare").click()
    tab.get_by_role("checkbox", name="sequence").uncheck()
    tab.locator("#compare").click()
    said(tab, "#table", "residual")
    for place in (1, 3, 2):
        tab.locator("#examples button").nth(place).click()
    said(tab, "#numbers", "64×96")  # the coffee, which is wide
    sync_api.expect(tab.locator("#table")).not_to_contain_text("residual", timeout=ENOUGH)
    tab.wait_for_timeout(1000)
    said(tab, "#numbers", "64×96")


def test_a_place_that_was_written_is_the_one_that_is_replaced(visit):
    tab = visit()
    tab.get_by_role("tab", name="Understand").click()
    said(tab, "#card", "row 33 of 64")
    tab.locator("#row input").fill("3")
    tab.locator("#column input").fill("5")  # and no Enter
    said(tab, "#card", "row 3 of 64")  # which does not write over the 5
    tab.locator("#replace").click()
    said(tab, "#card", "row 3 of 64, column 5 of 64")
    token = tab.locator("#card dd").first.inner_text()
    said(tab, "#effect", f"{token} → ")


def test_a_chosen_size_stays_where_the_tokenizer_takes_it(visit):
    tab = visit()
    tab.get_by_role("radio", name="128 px").check()
    said(tab, "#numbers", "32×32")
    tab.get_by_label("Tokenizer").click()
    tab.get_by_role("option", name="residual").click()
    said(tab, "#numbers", "3×32×32")


def test_what_is_refused_is_said(visit, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"no picture")
    tab = visit()
    tab.set_input_files("#picture input[type=file]", tmp_path / "picture.png")
    sync_api.expect(tab.get_by_text("This is no picture that can be read")).to_be_visible(timeout=ENOUGH)
    assert tab.locator(".panels [data-testid='status-tracker'] .error:visible").count() == 0
    shows(tab, "#reconstruction", "#tokens")


def test_it_can_be_used_by_keyboard(visit):
    tab = visit()
    tab.get_by_role("tab", name="See").focus()
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    row = tab.locator("#row input")
    sync_api.expect(row).to_be_visible(timeout=ENOUGH)
    said(tab, "#card", "row 33 of 64, column 33 of 64")
    row.fill("3")
    row.press("Tab")
    assert tab.evaluate("document.activeElement.closest('#column') !== null")
    tab.keyboard.press("Control+A")
    tab.keyboard.type("5")
    tab.keyboard.press("Enter")
    said(tab, "#card", "row 3 of 64, column 5 of 64")
    tab.locator("#examples button").nth(2).focus()
    tab.keyboard.press("Enter")
    said(tab, "#numbers", "64×96")  # the coffee, which is wide


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(visit, screen, scheme):
    tab = visit(**screen, color_scheme=scheme)
    for name in ("See", "Understand", "Compare", "Take away", "API"):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
    tab.get_by_role("tab", name="See").click()
    tiles = tab.locator(".tile dd").all()
    assert all(tile.evaluate("one => one.scrollWidth <= one.clientWidth") for tile in tiles)
    dark = tab.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")
