"""The explorer of edits in a real browser, see lab."""

import pytest
from playwright.sync_api import Page, expect

from lab import EXPLORE, click, needs_browser, opened, served

pytestmark = needs_browser

EDITED, READING, MESSAGE = ".vdx-edited img", ".vdx-p", ".vdx-message"
PIXELS = """image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The edit explorer's notebook in the browser, all cells run."""
    with (
        served(EXPLORE / "edit_weights.ipynb", tmp_path_factory.mktemp("lab")) as address,
        opened(address) as page,
    ):
        yield page


def seen(page: Page) -> tuple[str, str]:
    """The edited picture's pixels, and the probability."""
    return page.locator(EDITED).evaluate(PIXELS), page.locator(READING).inner_text()


def wait_for_another(page: Page, before: tuple[str, str]) -> None:
    """Until picture and probability both differ from what they were."""
    expect(page.locator(READING)).not_to_have_text(before[1])
    wait_for_pixels(page, "!==", before[0])


def wait_for_pixels(page: Page, relation: str, pixels: str) -> None:
    """Until the edited picture is (===) or is not (!==) this one."""
    page.wait_for_function(
        f"([selector, known]) => ({PIXELS})(document.querySelector(selector)) {relation} known",
        arg=[EDITED, pixels],
    )


def test_dragging_a_slider_shows_another_picture_and_probability(page):
    page.locator(".vdx").scroll_into_view_if_needed()
    original = seen(page)
    handle = page.locator(".vdx .noUi-handle").first
    before = original
    for key in ("ArrowLeft", "PageDown", "PageDown"):
        handle.press(key)
        wait_for_another(page, before)
        before = seen(page)
    click(page, "Reset")
    expect(page.locator(READING)).to_have_text(original[1])
    wait_for_pixels(page, "===", original[0])
    handle.hover()
    box = handle.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + box["height"] / 2)
    page.mouse.up()
    wait_for_another(page, original)


def test_a_small_screen_holds_pictures_buttons_and_sliders(page):
    page.set_viewport_size({"width": 1100, "height": 800})
    page.locator(".vdx").evaluate("box => box.scrollIntoView()")
    for part in (EDITED, READING, ".vdx-buttons button", ".vdx-sliders .noUi-handle"):
        for number in range(page.locator(part).count()):
            box = page.locator(part).nth(number).bounding_box()
            assert 0 <= box["x"] <= box["x"] + box["width"] <= 1100
            assert 0 <= box["y"] <= box["y"] + box["height"] <= 800
    page.set_viewport_size({"width": 1440, "height": 1000})


def test_a_search_can_be_stopped_and_undone(page):
    page.locator(".vdx input[type=number]").fill("117")
    page.locator(".vdx input[type=number]").press("Enter")
    expect(page.locator(".vdx-edited")).to_contain_text("seed 117")
    before = seen(page)
    click(page, "Search")
    expect(page.locator(MESSAGE)).to_contain_text("Step ")
    click(page, "Stop")
    expect(page.locator(MESSAGE)).to_contain_text(" steps; ")
    click(page, "Undo")
    expect(page.locator(READING)).to_have_text(before[1])
    wait_for_pixels(page, "===", before[0])
    click(page, "Undo")  # the face before
    expect(page.locator(".vdx-edited")).not_to_contain_text("seed 117")


def test_search_ends_at_what_it_says_and_stays_there(page):
    before = seen(page)
    click(page, "Search")
    expect(page.locator(MESSAGE)).to_contain_text(" steps; ")
    wait_for_another(page, before)
    reached = page.locator(MESSAGE).inner_text().rstrip(".").split()[-1]
    click(page, "Save picture")  # comes after whatever the sliders may have answered
    expect(page.locator(MESSAGE)).to_contain_text("picture_")
    expect(page.locator(READING)).to_have_text(reached)


def test_a_new_prompt_gets_its_slider(page):
    names = page.locator(".vdx-sliders .widget-slider .widget-label")
    prompts = ["a face with lipstick", *names.all_inner_texts()]
    page.locator(".vdx textarea").fill("\n".join(prompts))
    click(page, "Apply")
    expect(names).to_have_text(prompts)
    before = seen(page)
    page.locator(".vdx .noUi-handle").first.press("End")
    wait_for_another(page, before)


@pytest.mark.parametrize(
    ("prompts", "error"), [(" \n", "attributes must be a list"), ("a face " * 60, "shorten it")]
)
def test_unusable_words_end_as_one_red_sentence(page, prompts, error):
    sliders = page.locator(".vdx .noUi-handle").count()
    page.locator(".vdx textarea").fill(prompts)
    click(page, "Apply")
    expect(page.locator(f"{MESSAGE} .vdx-error")).to_contain_text(error)
    assert page.locator(".vdx .noUi-handle").count() == sliders
    assert page.locator(".vdx .jp-OutputArea-output").count() == 0  # no traceback
