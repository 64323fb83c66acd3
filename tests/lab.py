"""A notebook in a real browser: JupyterLab with this Python's kernel, and Chromium.

Everything happens in a temporary folder, with a copy of the notebook. Where there is no Chromium,
its tests are skipped: `apt-get install chromium`, or any of the names below on the PATH.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
import pytest
from playwright.sync_api import Page, expect, sync_playwright

import visiondx
from visiondx.run import notebooks, presets

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH"
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 600  # seconds: the kernel imports torch and loads five models, perhaps on a busy machine
EXPLORE = notebooks.ROOT / "notebooks" / "explore"
LAST = 'import sys\nprint("all", "cells", "ran", "in", sys.executable)'
SETTINGS = {  # draw all cells, not only those in view; do not ask whether there is news
    "notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}


@contextmanager
def served(source: Path, home: Path) -> Iterator[str]:
    """Address of a notebook's copy in a JupyterLab of its own, with no settings of the user's."""
    copy = home / "root" / source.name
    copy.parent.mkdir()
    smoke = presets.settings(source, "smoke") | {"out_dir": str(home / "run")}
    papermill.execute_notebook(source, copy, smoke, prepare_only=True)
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


@contextmanager
def opened(address: str) -> Iterator[Page]:
    """The notebook in the browser, all cells run."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        page.goto(address)
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()  # the kernel is there
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        said = page.locator(".jp-OutputArea-output", has_text="all cells ran in")
        expect(said).to_have_text(f"all cells ran in {sys.executable}")
        yield page
        browser.close()


def click(page: Page, name: str) -> None:
    """Press a button of the explorer."""
    page.locator(".vdx button", has_text=name).click()
