"""What a notebook file tells: its place, title and parameters, and whether its outputs are stale.

A committed notebook carries the outputs of a papermill run. ``store`` copies them in, with the
pictures compressed, and leaves a hash of the cells that made them in the notebook's metadata.
"""

import ast
import base64
import copy
import hashlib
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[3]
SIZE_LIMIT = 1_000_000  # bytes of a committed notebook
WIDGET = "application/vnd.jupyter.widget-view+json"


def paths() -> list[Path]:
    """Every notebook under ``notebooks/``, sorted.

    Raises:
        InputError: visiondx was installed without them.
    """
    if not (ROOT / "notebooks").is_dir():
        raise InputError(
            "The notebooks are not installed: run them in a checkout of visiondx, where "
            "`pip install -e .` was called; `visiondx.diagnose` in Python needs none."
        )
    found = (ROOT / "notebooks").rglob("*.ipynb")
    return sorted(p for p in found if ".ipynb_checkpoints" not in p.parts)


def find(path: str | Path) -> Path:
    """The notebook at ``path``, seen from the working directory or else from the repository.

    Raises:
        InputError: there is no such notebook.
    """
    path = Path(path)
    for folder in (Path.cwd(), ROOT, ROOT / "notebooks"):
        for candidate in (folder / path, folder / f"{path}.ipynb"):
            if candidate.suffix == ".ipynb" and candidate.is_file():
                return candidate.resolve()
    paths()  # there are some
    raise InputError(f"No notebook {str(path)!r}: `visiondx list` shows those that there are.")


def key(path: Path) -> str:
    """Its name in presets and under ``runs/``: the path without ``notebooks/`` and suffix."""
    path = path.resolve().with_suffix("")
    home = ROOT / "notebooks"
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else path.name


def read(path: Path) -> "NotebookNode":
    """The notebook as nbformat 4.

    Raises:
        InputError: the file is not a notebook.
    """
    import nbformat  # a second and more

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds, from JSON's to its own
        raise InputError(f"{path} is not a notebook: {str(error).splitlines()[0]}.") from error


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells, each with its source as one text. Not validated, for that needs nbformat.

    Raises:
        InputError: the file is not a notebook.
    """
    try:
        found = json.loads(path.read_text("utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in found]
    except (OSError, ValueError, KeyError, TypeError):
        return read(path).cells  # of an older format, or no notebook


def title(path: Path) -> str:
    """The text of the ``# heading`` that opens the first cell, or ``""``."""
    first = next(iter(cells(path)), None)
    if first is None or first["cell_type"] != "markdown" or not first["source"].startswith("# "):
        return ""
    return first["source"].splitlines()[0][2:].strip()


def parameters(path: Path) -> dict[str, Any]:
    """The names that the cell tagged ``parameters`` assigns, with their defaults.

    A default that is no literal (``name = other``) comes as ``...``: any value may replace it.
    Lines of magic are passed over.

    Raises:
        InputError: the notebook has no such cell, or it is not Python.
    """
    tagged = [c for c in cells(path) if "parameters" in c.get("metadata", {}).get("tags", [])]
    if not tagged:
        raise InputError(
            f"{path} has no cell tagged 'parameters': tag the cell that holds its settings."
        )
    try:
        body = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", tagged[0]["source"])).body
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"{path}: the cell tagged 'parameters' is not Python ({error}): mend it first."
        ) from None
    declared: dict[str, Any] = {}
    for line in body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                try:
                    declared[target.id] = ast.literal_eval(line.value)
                except (ValueError, TypeError):
                    declared[target.id] = ...
    return declared


def _own_cells(notebook: "NotebookNode") -> "list[NotebookNode]":
    """The author's cells: none that papermill added."""
    return [
        cell
        for cell in notebook.cells
        if not {"injected-parameters", "papermill-error-cell-tag"}
        & set(cell.metadata.get("tags", []))
    ]


def source_hash(notebook: "NotebookNode") -> str:
    """sha256 over kind and source of the author's cells, but for their imports.

    Imports say where a thing lives, not what it does: a module that moves makes no output stale.
    """
    digest = hashlib.sha256()
    for cell in _own_cells(notebook):
        source = _without_imports(cell.source) if cell.cell_type == "code" else cell.source
        digest.update(f"{cell.cell_type}\0{source}\0".encode())
    return digest.hexdigest()


def _without_imports(source: str) -> str:
    """The lines that are no top-level import; all of them where the cell is not plain Python."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return source
    lines = source.splitlines()
    for part in reversed(body):
        if isinstance(part, ast.Import | ast.ImportFrom):
            del lines[part.lineno - 1 : part.end_lineno]
    return "\n".join(lines).strip("\n")


def has_outputs(notebook: "NotebookNode") -> bool:
    return any(cell.get("outputs") for cell in notebook.cells)


def is_stale(notebook: "NotebookNode") -> bool:
    """True where stored outputs were not made by the cells that stand above them."""
    stored = notebook.metadata.get("visiondx", {}).get("source_hash")
    return has_outputs(notebook) and stored != source_hash(notebook)


def store(executed: Path, source: Path, preset: str) -> None:
    """Copy the outputs of ``executed`` into the notebook ``source``, in under ``SIZE_LIMIT`` bytes.

    Pictures become palette PNGs. Progress bars and other widgets, warnings (stderr) and this
    machine's paths stay behind in the executed notebook.

    Raises:
        InputError: ``source`` changed since the run, or its outputs are too large.
    """
    import nbformat

    ran, target = read(executed), read(source)
    if source_hash(ran) != source_hash(target):
        raise InputError(f"{source} changed while it ran: run it again to store its outputs.")
    target.metadata = nbformat.NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
        visiondx={"preset": preset, "source_hash": source_hash(target)},
    )
    for colours in (256, 128, 64, 32):
        for cell, done in zip(target.cells, _own_cells(ran)):
            if cell.cell_type == "code":
                cell.execution_count = None
                cell.outputs = [_slim(o, colours) for o in done.outputs if _lasts(o)]
        text = nbformat.writes(target)
        if len(text.encode()) < SIZE_LIMIT:
            with atomic_write(source) as part:
                part.write_text(text + "\n", encoding="utf-8")
            return
    raise InputError(
        f"{source} would hold {len(text.encode()) / 1e6:.1f} MB with its outputs, more than "
        f"{SIZE_LIMIT / 1e6:.0f} MB: show fewer or smaller pictures."
    )


def _lasts(output: "NotebookNode") -> bool:
    """Whether it tells a reader anything; the text of a widget is a class or an empty bar."""
    data = output.get("data", {})
    only_widget = WIDGET in data and set(data) <= {WIDGET, "text/plain"}
    return output.get("name") != "stderr" and not only_widget


def _slim(output: "NotebookNode", colours: int) -> "NotebookNode":
    """One output as it is stored: smaller pictures, no widget, no count, no machine's path."""
    output = copy.deepcopy(output)
    output.pop("execution_count", None)
    if output.output_type == "execute_result":
        output.execution_count = None
    data = output.get("data", {})
    data.pop(WIDGET, None)
    if "image/png" in data:
        data["image/png"] = compress_png(data["image/png"], colours)
    for holder, name in [(output, "text"), *((data, kind) for kind in data if kind != "image/png")]:
        if isinstance(holder.get(name), str):
            holder[name] = holder[name].replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    return output


def compress_png(encoded: str, colours: int) -> str:
    """The picture (base64 PNG) with at most ``colours`` colours; as it was if that is smaller."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB").quantize(colours)
    buffer = io.BytesIO()
    flat.save(buffer, "PNG", optimize=True)
    smaller = base64.b64encode(buffer.getvalue()).decode()
    return smaller if len(smaller) < len(encoded) else encoded
