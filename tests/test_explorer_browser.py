"""The explorer in a real browser: JupyterLab with this Python's kernel, and Chromium.

Everything happens in a temporary folder, with a copy of the notebook. Skipped where there is no
Chromium: `apt-get install chromium`, or any of the names below on the PATH.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import papermill
import pytest
from playwright.sync_api import Page, expect, sync_playwright

import visiondx
from visiondx import notebooks, runs

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH"
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 600  # seconds: the kernel imports torch and loads five models, perhaps on a busy machine
SOURCE = notebooks.ROOT / "notebooks" / "explore" / "edit_weights.ipynb"
LAST = 'import sys\nprint("all", "cells", "ran", "in", sys.executable)'
SETTINGS = {  # draw all cells, not only those in view; do not ask whether there is news
    "notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}

EDITED, READING, MESSAGE = ".vdx-edited img", ".vdx-p", ".vdx-message"
PIXELS = """image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of the notebook's copy in a JupyterLab of its own, with no settings of the user's."""
    home = tmp_path_factory.mktemp("lab")
    copy = home / "root" / "explorer.ipynb"
    copy.parent.mkdir()
    smoke = runs.settings(SOURCE, "smoke") | {"out_dir": str(home / "run")}
    papermill.execute_notebook(SOURCE, copy, smoke, prepare_only=True)
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST))
    nbformat.write(notebook, copy)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(home / name) for name in folders}
    own["PYTHONPATH"] = str(Path(visiondx.__file__).parents[1])
    for name, value in SETTINGS.items():
        setting = home / "JUPYTER_CONFIG_DIR" / "lab" / "user-settings" / "@jupyterlab" / name
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text(json.dumps(value), encoding="utf-8")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={copy.parent}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/api/status", home / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/{copy.name}?reset"
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait_for(server: subprocess.Popen, url: str, log: Path) -> None:
    """Until the server answers; fails with what it wrote if it has ended."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text('utf-8')[-3000:]}")


@pytest.fixture(scope="module")
def page(lab):
    """The notebook in the browser, all cells run."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        page.goto(lab)
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()  # the kernel is there
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        said = page.locator(".jp-OutputArea-output", has_text="all cells ran in")
        expect(said).to_have_text(f"all cells ran in {sys.executable}")
        yield page
        browser.close()


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


def click(page: Page, name: str) -> None:
    page.locator(".vdx button", has_text=name).click()


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
