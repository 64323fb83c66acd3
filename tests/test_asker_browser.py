"""The explorer of sentences in a real browser, see lab."""

from playwright.sync_api import expect

from lab import EXPLORE, click, needs_browser, opened, served

pytestmark = needs_browser
READING, MESSAGE, SIDE = ".vdx-ends", ".vdx-message", ".vdx-half-box"


def test_two_other_sentences_get_another_answer(tmp_path):
    """Typed words, the truth, and words that cannot be drawn or read."""
    with served(EXPLORE / "ask_the_model.ipynb", tmp_path) as address, opened(address) as page:
        expect(page.locator(".vdx select").first).to_have_value("recogniser-0")
        asked = page.locator(".vdx input[type=text]")
        pictures = page.locator(".vdx-strip img")
        before = page.locator(READING).inner_text(), pictures.first.get_attribute("src")
        asked.nth(0).fill("a man with a hat")
        asked.nth(0).press("Enter")
        expect(page.locator(SIDE).first).to_contain_text("“a man with a hat”")
        expect(page.locator(READING)).not_to_have_text(before[0])
        expect(pictures.first).not_to_have_attribute("src", before[1])
        count = pictures.count()
        click(page, "Draw the truth")
        expect(page.locator(".vdx-true")).to_have_count(1)
        expect(pictures).not_to_have_count(count)  # they come after the frame around them
        assert pictures.count() > count
        asked.nth(1).fill("a face with <b>red</b> shoes")
        asked.nth(1).press("Enter")
        expect(page.locator(SIDE).nth(1)).to_contain_text("<b>red</b> shoes")
        click(page, "Draw the truth")
        expect(page.locator(f"{MESSAGE} .vdx-error")).to_contain_text("use those of")
        answer = page.locator(READING).inner_text()
        asked.nth(1).fill(" ")
        asked.nth(1).press("Enter")
        expect(page.locator(f"{MESSAGE} .vdx-error")).to_contain_text("is empty")
        assert page.locator(READING).inner_text() == answer
        asked.nth(1).fill("qwxzk vlorptk")
        asked.nth(1).press("Enter")
        expect(page.locator(".vdx-verdict")).to_contain_text("does not know “qwxzk”")
        assert page.locator(".vdx .jp-OutputArea-output").count() == 0  # no traceback
