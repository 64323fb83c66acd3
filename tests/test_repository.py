"""The repository's promises: one list of packages, whole presets, notebooks of one form."""

import ast
import importlib
import re
import sys
import tomllib
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from nbformat import validate

import visiondx
from visiondx.run import notebooks, presets

ROOT = Path(visiondx.__file__).resolve().parents[2]
NOTEBOOKS = notebooks.paths()
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=map(notebooks.key, NOTEBOOKS))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DECLARED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
IMPORTED_AS = {
    "faiss-cpu": "faiss",
    "ipython": "IPython",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "open-clip-torch": "open_clip",
}


def test_conda_users_get_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *plain, pip = environment["dependencies"]
    assert plain == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip["pip"] == [*DECLARED, "--editable ."]


def test_lower_bounds_are_the_versions_that_ci_uses():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in DECLARED:
        name, bound = requirement.split(";")[0].split(">=")
        assert pinned[name] == bound, requirement


def sources():
    """(name, code) of every Python file and notebook."""
    for path in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        yield path, path.read_text("utf-8")
    for path in NOTEBOOKS:
        cells = [c.source for c in notebooks.read(path).cells if c.cell_type == "code"]
        yield path, "\n".join(re.sub(r"(?m)^[%!].*$", "", source) for source in cells)


def test_every_import_is_declared():
    known = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in declared_names()}
    known |= sys.stdlib_module_names | {"visiondx", "visiondx_worlds"}
    undeclared = set()
    for path, code in sources():
        own = {p.stem for p in path.parent.glob("*.py")}
        for node in ast.walk(ast.parse(code)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            tops = {name.split(".")[0] for name in names}
            undeclared |= {(path.name, top) for top in tops - known - own}
    assert not undeclared


@EACH
def test_what_a_notebook_imports_of_ours_is_there(path):
    cells = [c["source"] for c in notebooks.cells(path) if c["cell_type"] == "code"]
    for node in ast.walk(ast.parse("\n".join(re.sub(r"(?m)^[%!].*$", "", c) for c in cells))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("visiondx"):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                submodule = hasattr(module, "__path__") and find_spec(f"{node.module}.{name}")
                assert hasattr(module, name) or submodule, f"{node.module}.{name}"


def declared_names():
    return [re.match(r"[\w-]+", requirement)[0] for requirement in DECLARED]


@pytest.mark.parametrize("name", ["smoke", "embedded", "full", "pretrained"])
def test_presets_name_notebooks_and_parameters_that_exist(name):
    assert name in presets.presets()
    preset = yaml.safe_load((ROOT / "data" / "presets" / f"{name}.yaml").read_text("utf-8"))
    assert set(preset) <= {"requires", "defaults", "notebooks"}
    by_key = {notebooks.key(path): path for path in NOTEBOOKS}
    for key, overrides in preset["notebooks"].items():
        assert key in by_key, f"{name}.yaml names {key}"
        declared = notebooks.parameters(by_key[key])
        for parameter, value in overrides.items():
            assert parameter in declared, f"{name}.yaml, {key}"
            assert value != declared[parameter], (
                f"{name}.yaml, {key}: {parameter} overrides nothing"
            )


def test_every_notebook_has_bounds_for_what_its_smoke_run_finds():
    bounds = yaml.safe_load((ROOT / "tests" / "notebook_bounds.yaml").read_text("utf-8"))
    assert set(bounds) == {notebooks.key(path) for path in NOTEBOOKS}
    for key, metrics in bounds.items():
        assert metrics, key
        for name, (low, high, *n) in metrics.items():
            assert low <= high, f"{key}: {name}"
            assert all(isinstance(count, int) and count > 0 for count in n), f"{key}: {name}"


@EACH
def test_notebook_has_the_common_form(path):
    notebook = notebooks.read(path)
    validate(notebook)
    assert notebooks.title(path), "the first cell opens with a '# title'"
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert {"preset", "out_dir"} <= set(notebooks.parameters(path))
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert "record(" in code[-1].source, "the last cell records the metrics"
    assert path.stat().st_size < notebooks.SIZE_LIMIT
    assert presets.settings(path, "smoke") is not None


def unseen_pictures(source):
    """Lines of a cell that save a picture and show it nowhere.

    A cell shows the value of its last line, if that stands outside of loops and conditions.
    """
    body = ast.parse(re.sub(r"(?m)^[%!].*$", "", source)).body
    statements = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Expr)]
    calls = [s for s in statements if s is not body[-1] and isinstance(s.value, ast.Call)]
    return [s.lineno for s in calls if getattr(s.value.func, "id", None) == "figure"]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("fig = draw()\nfigure(fig, 'a', out_dir)", []),
        ("for x in y:\n    figure(x, 'a', out_dir)", [2]),
        ("if x:\n    figure(x, 'a', out_dir)", [2]),
        ("figure(x, 'a', out_dir)\nprint(1)", [1]),
        (
            "%time x\nfor x in y:\n    display(figure(x, 'a', out))\nsaved = figure(x, 'b', out)",
            [],
        ),
    ],
)
def test_pictures_that_a_cell_does_not_show_are_found(source, lines):
    assert unseen_pictures(source) == lines


@EACH
def test_every_picture_is_shown(path):
    code = [c.source for c in notebooks.read(path).cells if c.cell_type == "code"]
    assert [source for source in code if unseen_pictures(source)] == []


@EACH
def test_stored_outputs_are_not_stale(path):
    notebook = notebooks.read(path)
    if not notebooks.has_outputs(notebook):
        warnings.warn(f"{notebooks.key(path)} stores no outputs yet", stacklevel=1)
        return
    assert not notebooks.is_stale(notebook), (
        f"run it again: visiondx run {notebooks.key(path)} --preset embedded --store"
    )
    assert notebook.metadata.visiondx.preset in ("embedded", "full")
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]


@EACH
def test_readme_gallery_shows_the_notebook(path):
    relative = path.relative_to(ROOT).as_posix()
    assert f"]({relative})" in (ROOT / "README.md").read_text("utf-8")


def test_readme_opens_with_a_picture_and_the_two_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "data/pictures/overview.png" in readme[: readme.index("make demo")]
    assert readme.index("make demo") < readme.index("make test") < readme.index("notebooks/")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)
    assert [p for p in pictures if not (ROOT / p).is_file()] == []


def test_makefile_has_the_promised_targets():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("setup", "demo", "test", "lint", "notebooks", "lab", "clean"):
        assert re.search(rf"(?m)^{target}:", makefile), target


def test_files_hold_no_machines_paths_and_no_unfinished_work():
    # classes like [k] keep this pattern from finding itself
    unwanted = re.compile(
        r"/wor[k]/|/roo[t]/|/hom[e]/\w|\.\./share[d]|TOD[O]\b|FIXM[E]|raise NotImplementedErro[r]"
        r"|<{7}|>{7}"
    )
    folders = [
        p for name in ("lib", "tests", "notebooks", "data") for p in (ROOT / name).rglob("*")
    ]
    texts = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ".json", ".csv", ".j2", ""}
    found = []
    for path in [*folders, *ROOT.iterdir(), ROOT / ".ci" / "run"]:
        inside = path.relative_to(ROOT).parts[:-1]
        hidden = "__pycache__" in inside or any(p[0] == "." for p in inside if p != ".ci")
        if path.is_file() and path.suffix in texts and not hidden and path.name != ".git":
            # a stored picture may spell anything by chance
            text = re.sub(r'"image/\w+": "[^"]*"|base64,[\w+/=]*', "", path.read_text("utf-8"))
            for match in unwanted.finditer(text):
                found.append((path.relative_to(ROOT).as_posix(), match[0]))
    assert not found


def test_python_files_are_short_and_in_their_places():
    for folder in ("lib", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text("utf-8").splitlines())
            assert lines <= 500, f"{path.name} has {lines} lines"
    assert not list((ROOT / "notebooks").rglob("*.py")) or all(
        path.parent.name == "tutorials" for path in (ROOT / "notebooks").rglob("*.py")
    )
