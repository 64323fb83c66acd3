"""The explorer of explanations in a real browser, see lab."""

from playwright.sync_api import expect

from lab import EXPLORE, click, needs_browser, opened, served

pytestmark = needs_browser
MESSAGE, WANTED, WORD = ".vdx-message", ".vdx-wanted", ".vdx-verdict-word"
STEPS = 3  # of the boxes for numbers


def test_a_search_is_watched_stopped_and_told(tmp_path):
    """Another class and its words, a search that is stopped, and a prompt that cannot be used."""
    notebook = EXPLORE / "what_does_it_want.ipynb"
    with served(notebook, tmp_path) as address, opened(address) as page:
        kind = page.locator(".vdx select").nth(1)
        words = page.locator(".vdx input[placeholder='words to paint']")
        painted = page.locator(".vdx-half-box").first.locator("img")
        expect(kind).to_have_value("umbrella")
        expect(page.locator(WORD)).to_have_count(1)  # of the search of a cell
        before = painted.first.get_attribute("src")
        kind.select_option("fish")
        expect(words).to_have_value("a photo of a fish")
        expect(page.locator(".vdx-half-box").first).to_contain_text("probability of fish")
        expect(painted.first).not_to_have_attribute("src", before)
        page.locator(".vdx input[type=number]").nth(STEPS).fill("500")
        page.locator(".vdx input[type=number]").nth(STEPS).press("Enter")
        click(page, "Search")
        expect(page.locator(MESSAGE)).to_contain_text(" of 500")
        expect(page.locator(WANTED)).to_contain_text("start 1")
        assert page.locator(".vdx-losses polyline").count() == 2
        assert page.locator(".vdx .progress").is_visible()
        click(page, "Stop")
        expect(page.locator(MESSAGE)).to_contain_text("Stopped at step")
        expect(page.locator(WANTED)).to_contain_text("noise that no step was made on")
        expect(page.locator(".vdx-lines")).to_contain_text("--class fish")
        assert not page.locator(".vdx .progress").is_visible()
        answer = page.locator(WANTED).inner_html()
        template = page.locator(".vdx input[placeholder='{t}']")
        template.fill("a <b>fish</b>")
        template.press("Enter")
        click(page, "Search")
        expect(page.locator(f"{MESSAGE} .vdx-error")).to_contain_text("0 times")
        assert page.locator(WANTED).inner_html() == answer
        words.fill("a fish on grass")
        words.press("Enter")
        expect(page.locator(f"{MESSAGE} .vdx-error")).to_have_count(0)
        assert page.locator(".vdx .jp-OutputArea-output").count() == 0  # no traceback
