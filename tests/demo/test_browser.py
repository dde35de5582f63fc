"""The page in a real browser: every tab is used once. Run by `make test-browser`."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.browser
MOUNTED = 1000  # ms until the inputs of a tab that was opened hold what is typed
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS = {"wide": (1280, 800), "phone": (390, 844)}
DONE = "([name]) => /step (\\d+) of \\1$/.test(document.querySelector(`#${name} output`).innerText)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert path, "no browser: install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=SCREENS)
def page(request, browser: Any, address: str) -> Iterator[Any]:
    """The page on a screen. Errors of the console and requests to other servers are failures."""
    width, height = SCREENS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page, faults = context.new_page(), []
    page.set_default_timeout(60_000)  # a busy machine is slow
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = (address, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url))
    page.goto(address)
    page.get_by_role("button", name="Write", exact=True).wait_for()
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not faults
    if folder := os.environ.get("SCREENSHOTS"):
        name = request.node.name.removeprefix("test_").replace("[", "_").rstrip("]")
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
    context.close()


def opened(page: Any, model: str, tab: str) -> Any:
    """The panel of a tab of a model."""
    page.get_by_role("tab", name=model, exact=True).click()
    panel = page.get_by_role("tabpanel").locator("visible=true").first
    panel.get_by_role("tab", name=tab, exact=True).locator("visible=true").click()
    page.wait_for_timeout(MOUNTED)
    return panel


def run(page: Any, button: str, name: str) -> str:
    """Starts a task and returns the HTML of its last step."""
    page.get_by_role("button", name=button, exact=True).locator("visible=true").click()
    page.wait_for_function(DONE, arg=[name])
    return page.locator(f"#{name} .td-view").inner_html()


def test_text_is_written_step_by_step(page):
    """The slider goes back to the first step, and each word has a colour."""
    opened(page, "text", "Write")
    last = run(page, "Write", "write")
    assert last.count("<p>") == 4
    assert page.locator("#write p span:not([class*=p])").count() == 0
    page.locator("#write input").fill("0")
    assert page.locator("#write output").inner_text() == "step 1 of 16"
    assert page.locator("#write .td-view").inner_html() != last


def test_changed_words_are_marked(page):
    opened(page, "text", "Rewrite")
    page.get_by_label("Strength").locator("visible=true").first.fill("0.9")
    run(page, "Rewrite", "rewrite")
    assert page.locator("#rewrite .td-view .new").count() > 0


def test_clicked_words_are_filled(page):
    """Only the clicked ones are new."""
    opened(page, "text", "Infill")
    words = page.locator(".td-words label")
    for place in (0, 2):
        words.nth(place).click()
    run(page, "Fill", "infill")
    count = words.count()
    for text in page.locator("#infill .td-view p").all():
        marks = [("new" in (w.get_attribute("class") or "")) for w in text.locator("span").all()]
        assert marks == [place in (0, 2) for place in range(count)]


def test_gaps_have_any_length(page):
    """Two adjacent words are replaced by one run of new words; the others stay as they are."""
    panel = opened(page, "text", "Infill")
    words = page.locator(".td-words label")
    kept = [words.nth(i).inner_text() for i in range(words.count()) if i not in (1, 2)]
    for place in (1, 2):
        words.nth(place).click()
    panel.get_by_label("Gaps of any length").locator("visible=true").check()
    run(page, "Fill", "infill")
    lengths = set()
    for text in page.locator("#infill .td-view p").all():
        old = text.locator("span:not(.new)").all_inner_texts()
        assert old == kept
        new = text.locator("span.new").count()
        assert text.locator(".new + .new").count() == new - 1
        lengths.add(new)
    assert len(lengths) > 1


def test_new_text_has_new_words_to_click(page):
    panel = opened(page, "text", "Infill")
    panel.get_by_label("Text", exact=True).locator("visible=true").fill("the king")
    page.wait_for_function("() => document.querySelectorAll('.td-words label').length === 2")


def test_target_is_generated_from_a_source(page):
    opened(page, "pairs", "Generate")
    page.get_by_label("Source").locator("visible=true").fill("the girls")
    assert run(page, "Generate", "generate").count("<p>") == 4


def test_noise_of_a_sentence_is_dragged(page):
    opened(page, "text", "Noise")
    clean, noisy = (dragged(page, "noise", place) for place in ("0", "40"))
    assert clean[0] != noisy[0]
    assert "t 0.00" in clean[1]
    assert "t 1.00" in noisy[1]


def dragged(page: Any, name: str, place: str) -> tuple[str, str]:
    page.locator(f"#{name} input").fill(place)
    found = (page.locator(f"#{name} {part}") for part in (".td-view", "output"))
    content, label = found
    return content.inner_html(), label.inner_text()


@pytest.mark.parametrize(("tab", "button"), [("Images", "Generate"), ("Edit", "Edit")])
def test_images_are_made_step_by_step(page, tab, button):
    opened(page, "images", tab)
    assert run(page, button, tab.lower()).count("<img") in (4, 8)


def test_painted_pixels_are_filled(page):
    opened(page, "images", "Inpaint")
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_timeout(500)  # the editor fits its picture to the canvas
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 20, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    assert run(page, "Fill", "inpaint").count("<img") == 4


def test_noise_of_a_picture_is_dragged(page):
    opened(page, "images", "Noise")
    assert dragged(page, "noise-image", "0")[0] != dragged(page, "noise-image", "40")[0]


def test_empty_text_is_one_line_on_the_page(page):
    panel = opened(page, "text", "Rewrite")
    panel.get_by_label("Text", exact=True).locator("visible=true").fill("")
    page.get_by_role("button", name="Rewrite", exact=True).locator("visible=true").click()
    error = page.locator("#rewrite .td-error")
    error.filter(has_text="the text is empty").wait_for()
    assert error.inner_text() == "the text is empty: type some words"
