"""Run notebooks headless with a preset, and record what they found.

One run is one folder: ``executed.ipynb``, ``report.html``, ``metrics.json`` (flat, written by the
notebook's last cell through ``record``), ``figures/`` and ``run.json`` (how it was run). A run that
fails leaves what is there, see ``folders``.
"""

import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.versions import device, versions
from visiondx.run import folders, notebooks
from visiondx.run.presets import settings

if TYPE_CHECKING:
    import pandas as pd
    from jupyter_client.manager import AsyncKernelManager
    from matplotlib.figure import Figure


class RunError(RuntimeError):
    """A cell failed: which one, why, and where the partial notebook lies."""


# ---------------------------------------------------------------- running


def run_notebook(
    path: str | Path,
    preset: str = "embedded",
    parameters: dict[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    manager: "type[AsyncKernelManager] | None" = None,
    export: bool = True,
) -> Path:
    """Execute a notebook headless, in the repository's root, with this interpreter's kernel.

    Args:
        path: of the notebook, from the working directory or from the repository.
        preset: a name of ``presets()``. parameters: override the preset's.
        out: folder of the run; default ``runs/<notebook>/<preset>``. A resumable notebook finds
            what it kept there again. The earlier run's results are replaced when this one is whole.
        manager: a class of jupyter_client's kernel managers; default ``own_kernel.OwnKernel``.
        export: write ``report.html``, unless the notebook wrote its own.

    Returns:
        The run's folder. Of a run that failed, all that ran is in its ``failed_run``.

    Raises:
        InputError: bad settings or a folder that cannot be used, before anything runs, or raised
            by a cell.
        RunError: a cell failed otherwise.
    """
    path = notebooks.find(path)
    chosen = settings(path, preset, parameters)
    default = notebooks.ROOT / "runs" / notebooks.key(path) / preset
    out = Path(out).resolve() if out is not None else default
    began = time.time()

    def note(work: Path, status: str) -> None:
        info = {
            "notebook": notebooks.key(path),
            "preset": preset,
            "status": status,
            "parameters": chosen,
            "seed": chosen.get("seed"),
            "seconds": round(time.time() - began, 1),
            "source_hash": notebooks.source_hash(notebooks.read(path)),
            "device": device(),
            "versions": versions(),
            "files": folders.files(work),
        }
        _write_json(work / folders.RECORD, info)

    with folders.claimed(out) as work:
        try:
            injected = chosen | {"preset": preset, "out_dir": _shown(work)}
            _execute(path, work / "executed.ipynb", injected, manager)
            if export and not (work / "report.html").exists():  # diagnose writes its own
                _export(work / "executed.ipynb", work / "report.html")
        except BaseException as error:  # an interrupt, too
            note(work, "failed")
            failed = folders.set_aside(work)
            if isinstance(error, RunError):
                text = f"{error}\n\nWhat ran until then: {failed / 'executed.ipynb'}"
                raise RunError(text) from None
            raise
        for page in ("executed.ipynb", "report.html"):
            _rename(work / page, _shown(work), _shown(out))
        note(work, "complete")
        folders.publish(work)
    return out


def _shown(folder: Path) -> str:
    """A folder as outputs name it: from the repository, if it is inside, so that all can share."""
    root = notebooks.ROOT
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)


def _rename(page: Path, old: str, new: str) -> None:
    """Where a page names the folder that its notebook worked in, name the one where it is now."""
    if page.exists():
        text = page.read_text("utf-8")
        text = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]).replace(old, new)
        page.write_text(text, encoding="utf-8")


def _execute(path: Path, executed: Path, injected: dict[str, Any], manager: type | None) -> None:
    """Papermill, which writes ``executed`` after each cell."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from visiondx.run.own_kernel import OwnKernel

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a warning at each kernel start
    try:
        papermill.execute_notebook(
            path,
            executed,
            parameters=injected,
            kernel_name="python3",
            language="python",
            kernel_manager_class=manager or OwnKernel,
            cwd=notebooks.ROOT,
            progress_bar=sys.stderr.isatty(),
        )
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(error.evalue) from None
        raise RunError(
            f"{path.name} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}\n\n"
            f"{_tail(error.traceback)}"
        ) from None
    except DeadKernelError:
        raise RunError(
            f"{path.name}: its kernel died, mostly for want of memory: try fewer images, "
            "or a smaller preset."
        ) from None


def _tail(traceback: list[str]) -> str:
    """The last twenty lines of a cell's traceback, without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
    return "\n".join(text.splitlines()[-20:])


def _export(executed: Path, report: Path) -> None:
    """The executed notebook as one HTML page with its pictures inside; only MathJax is fetched."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        require_js_url="data:text/javascript,",  # for live widgets, which a static page has not
    )
    html, _ = exporter.from_filename(str(executed))
    with atomic_write(report) as part:
        part.write_text(html, encoding="utf-8")


# ---------------------------------------------------------------- results


def record(metrics: dict[str, Any], out_dir: str | Path) -> "pd.DataFrame":
    """Write ``metrics.json``, one flat object: each key has ``{value, low, high, n}``.

    Args:
        metrics: an ``Estimate``, such a dict, or a plain number (exact: its interval is itself,
            its n is 1) under each key.

    Returns:
        The same as a table, for the notebook to show.

    Raises:
        InputError: a value that is no finite number, naming its key.
    """
    import pandas as pd

    flat = {name: _entry(name, value) for name, value in metrics.items()}
    _write_json(Path(out_dir) / "metrics.json", flat)
    return pd.DataFrame.from_dict(flat, orient="index", columns=["value", "low", "high", "n"])


def _entry(name: str, value: Any) -> dict[str, float | int]:
    given = value.as_dict() if hasattr(value, "as_dict") else value
    if not isinstance(given, dict):
        given = {"value": given}
    if "value" not in given or set(given) - {"value", "low", "high", "n"}:
        raise InputError(
            f"Metric {name!r} has the fields {sorted(given)}: give value, low, high and n."
        )
    entry = {"low": given["value"], "high": given["value"], "n": 1} | given
    for field, number in entry.items():
        number = number.item() if hasattr(number, "item") else number
        number = int(number) if isinstance(number, bool) else number
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(
                f"Metric {name!r} has {field} = {number!r}: only finite numbers are recorded."
            )
        entry[field] = number
    return {field: entry[field] for field in ("value", "low", "high", "n")}


def figure(fig: "Figure", name: str, out_dir: str | Path) -> "Figure":
    """Save ``figures/<name>.png`` in the run's folder; returns ``fig``, for the cell to show."""
    from matplotlib import pyplot

    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"Figure name {name!r}: use letters, digits, '_', '-' and '.' only.")
    with atomic_write(Path(out_dir) / "figures" / f"{name}.png") as part:
        fig.savefig(part, dpi=110, bbox_inches="tight")
    pyplot.close(fig)  # or the notebook would show it a second time
    return fig


def _write_json(path: Path, content: dict) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
