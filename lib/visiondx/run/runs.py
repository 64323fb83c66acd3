"""Run notebooks headless with a preset, and record what they found.

One run is one folder: ``executed.ipynb``, ``report.html``, ``metrics.json`` (flat, written by the
notebook's last cell through ``record``), ``figures/`` and ``run.json`` (how it was run).
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
from visiondx.core.files import atomic_write, data_dir, read_yaml, reading
from visiondx.core.versions import device, versions
from visiondx.run import notebooks

if TYPE_CHECKING:
    import pandas as pd
    from jupyter_client.manager import AsyncKernelManager
    from matplotlib.figure import Figure


class RunError(RuntimeError):
    """A cell failed: which one, why, and where the partial notebook lies."""


# ---------------------------------------------------------------- presets and parameters


def presets() -> list[str]:
    """Names of the presets in ``data/presets``."""
    return sorted(path.stem for path in (data_dir() / "presets").glob("*.yaml"))


def settings(path: str | Path, preset: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """What to inject into the notebook at ``path``: the preset's values, then those given.

    Raises:
        InputError: no such notebook or preset, a parameter that the notebook does not declare
            or of another type than its default, or a preset that the notebook cannot run with.
    """
    path = notebooks.find(path)
    declared = notebooks.parameters(path)
    if preset not in presets():
        raise InputError(f"Unknown preset {preset!r}: choose one of {', '.join(presets())}.")
    file = data_dir() / "presets" / f"{preset}.yaml"
    fix = "correct it, or restore it with 'git checkout data/presets'"
    read = read_yaml(file, fix)
    with reading(file, fix):
        for name in read.get("requires") or []:
            if name not in declared:
                raise InputError(
                    f"{path.name} cannot run with preset {preset!r}, which sets {name!r}: "
                    "the notebook has no such parameter."
                )
        defaults = read.get("defaults") or {}
        chosen = {name: value for name, value in defaults.items() if name in declared}
        chosen |= (read.get("notebooks") or {}).get(notebooks.key(path)) or {}
    chosen |= given or {}
    for name in chosen:
        if name not in declared:
            raise InputError(
                f"Unknown parameter {name!r} for {path.name}: it has {', '.join(declared)}."
            )
        chosen[name] = _typed(name, chosen[name], declared[name])
    return chosen


def _typed(name: str, value: Any, default: Any) -> Any:
    """``value`` in the type of the parameter's default; None and non-literal defaults take any."""
    if default is None or default is ... or value is None:
        return value
    if isinstance(default, str) and isinstance(value, int | float | bool):
        return str(value)  # a name such as 2024
    accepted = {float: (int, float), list: (list, tuple)}.get(type(default), type(default))
    if not isinstance(value, accepted) or (isinstance(value, bool) and type(default) is not bool):
        raise InputError(
            f"Parameter {name!r} must be {type(default).__name__} like {default!r}, got {value!r}."
        )
    return list(value) if isinstance(value, tuple) else value


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
            its own files there again; an earlier run's results are removed first.
        manager: a class of jupyter_client's kernel managers; default ``own_kernel.OwnKernel``.
        export: write ``report.html``, unless the notebook wrote its own.

    Returns:
        The run's folder. Its ``executed.ipynb`` is there, partial, even when a cell failed.

    Raises:
        InputError: bad settings, before anything runs, or raised by a cell.
        RunError: a cell failed otherwise.
    """
    path = notebooks.find(path)
    chosen = settings(path, preset, parameters)
    default = notebooks.ROOT / "runs" / notebooks.key(path) / preset
    out = Path(out).resolve() if out is not None else default
    out.mkdir(parents=True, exist_ok=True)
    for name in ("executed.ipynb", "report.html", "metrics.json", "run.json"):
        (out / name).unlink(missing_ok=True)
    root = notebooks.ROOT  # inside it the run's folder is named from there: outputs can be shared
    shown = out.relative_to(root).as_posix() if out.is_relative_to(root) else str(out)

    began = time.time()
    status = "failed"
    try:
        injected = chosen | {"preset": preset, "out_dir": shown}
        _execute(path, out / "executed.ipynb", injected, manager)
        status = "complete"
    finally:
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
        }
        _write_json(out / "run.json", info)
    if export and not (out / "report.html").exists():  # diagnose writes its own
        _export(out / "executed.ipynb", out / "report.html")
    return out


def _execute(path: Path, executed: Path, injected: dict[str, Any], manager: type | None) -> None:
    """Papermill, into a temporary file that takes its name when execution has ended."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from visiondx.run.own_kernel import OwnKernel

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a warning at each kernel start
    partial = executed.with_name("executed.part.ipynb")
    try:
        papermill.execute_notebook(
            path,
            partial,
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
            f"{_tail(error.traceback)}\n\nWhat ran until then: {executed}"
        ) from None
    except DeadKernelError:
        raise RunError(
            f"{path.name}: its kernel died, mostly for want of memory: try fewer images, "
            f"or a smaller preset. What ran until then: {executed}"
        ) from None
    finally:
        if partial.exists():
            os.replace(partial, executed)


def _tail(traceback: list[str], lines: int = 20) -> str:
    """The last lines of a cell's traceback, without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
    return "\n".join(text.splitlines()[-lines:])


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
