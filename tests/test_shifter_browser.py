"""The explorer of shifts in a real browser, see lab."""

from playwright.sync_api import expect

from lab import EXPLORE, click, needs_browser, opened, served

pytestmark = needs_browser
MESSAGE, YIELD = ".vdx-message", ".vdx-yield"
COUNT = 0  # of the boxes for numbers
WORDS = ".vdx input[placeholder^='in your own words']"


def test_a_shift_is_chosen_filtered_described_and_stopped(tmp_path):
    """Another shift, the threshold dragged, words of one's own, another model, and Stop."""
    notebook = EXPLORE / "shift_explorer.ipynb"
    with served(notebook, tmp_path) as address, opened(address) as page:
        columns = {name: page.locator(f".vdx-row-{name}") for name in ("name", "token", "truth")}
        model, kind, shift = (page.locator(".vdx select").nth(k) for k in range(3))
        message, passed = page.locator(MESSAGE), page.locator(YIELD)
        for column in columns.values():
            expect(column.locator("img")).to_have_count(4)
        expect(kind).to_have_value("boat")
        expect(shift).to_have_value("in the grass")
        expect(columns["token"]).to_contain_text("“a photo of a <boat> in the grass”")
        before = columns["token"].locator("img").first.get_attribute("src")
        shift.select_option("in the snow")
        expect(columns["token"]).to_contain_text("in the snow")
        expect(page.locator(".vdx .progress")).to_be_hidden()
        expect(columns["token"].locator("img")).to_have_count(4)
        expect(columns["token"].locator("img").first).not_to_have_attribute("src", before)
        expect(page.locator(".vdx-verdict")).to_contain_text("The truth is")

        # the slider: at its most no picture passes, and at its least every one that has its class
        handle = page.locator(".vdx .noUi-handle")
        shown = columns["token"].locator("img").first.get_attribute("src")
        handle.press("End")
        expect(passed).to_contain_text("0%")
        expect(columns["token"].locator(".vdx-out:visible")).to_have_count(4)
        expect(columns["token"].locator(".vdx-in:visible")).to_have_count(0)
        assert columns["token"].locator("img").first.get_attribute("src") == shown
        assert (
            columns["token"]
            .locator("img")
            .first.evaluate("image => getComputedStyle(image).opacity")
            == "0.3"
        )
        handle.press("Home")
        expect(page.locator(".vdx-buttons")).to_contain_text("chosen by eye")
        kept = columns["token"].locator(".vdx-in:visible").count()
        expect(passed).to_contain_text(f"{kept / 4:.0%}")
        click(page, "As calibrated")
        expect(page.locator(".vdx-buttons")).to_contain_text("calibrated: of")

        # words of one's own, of which nobody knows the truth
        page.locator(WORDS).fill("on the <b>beach</b> at night")
        page.locator(WORDS).press("Enter")
        expect(message.locator(".vdx-error")).to_contain_text("no token here")
        answer = columns["token"].inner_html()
        page.locator(WORDS).fill("on the beach " * 30)
        page.locator(WORDS).press("Enter")
        expect(message.locator(".vdx-error")).to_contain_text("shorten it")
        page.locator(WORDS).fill("")
        page.locator(WORDS).press("Enter")
        expect(message.locator(".vdx-error")).to_contain_text("needs words")
        assert columns["token"].inner_html() == answer
        page.locator(WORDS).fill("on the beach at night")
        page.locator(WORDS).press("Enter")
        expect(columns["truth"]).to_contain_text("nobody can draw this shift")
        expect(columns["token"]).to_contain_text("on the beach at night")
        expect(message.locator(".vdx-error")).to_have_count(0)
        expect(shift).to_have_value("your own words")

        # another model sees the same pictures
        expect(page.locator(".vdx .progress")).to_be_hidden()
        expect(columns["token"].locator("img")).to_have_count(4)
        same = columns["token"].locator("img").first.get_attribute("src")
        answers = columns["token"].locator(".vdx-says").all_inner_texts()
        model.select_option("contexts-first")
        expect(page.locator(".vdx-lines")).to_contain_text("--models contexts-first")
        assert columns["token"].locator("img").first.get_attribute("src") == same
        assert columns["token"].locator(".vdx-says").all_inner_texts() != answers

        # Stop
        page.locator(".vdx input[type=number]").nth(COUNT).fill("100")
        page.locator(".vdx input[type=number]").nth(COUNT).press("Enter")
        expect(message).to_contain_text(" of 200")
        click(page, "Stop")
        expect(message).to_contain_text("of 100 pictures")
        made = columns["token"].locator("img").count()
        assert 0 < made < 100
        assert columns["name"].locator("img").count() == made
        assert page.locator(".vdx .jp-OutputArea-output").count() == 0  # no traceback
