"""What is injected into a notebook: a preset's values and a person's, in the types it declares."""

import ast
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, read_yaml, reading
from visiondx.run import notebooks
from visiondx.run.checks import check_parameters

OF_THE_RUN = {"preset": "--preset", "out_dir": "--out"}  # these parameters, by these options


def presets() -> list[str]:
    """Names of the presets in ``data/presets``."""
    return sorted(path.stem for path in (data_dir() / "presets").glob("*.yaml"))


def settings(path: str | Path, preset: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """What to inject into the notebook at ``path``: the preset's values, then those given.

    Raises:
        InputError: no such notebook or preset, a parameter that the notebook does not declare,
            that the run sets, of another type than its default or with a value that cannot be
            used, or a preset that the notebook cannot run with.
    """
    path = notebooks.find(path)
    declared = notebooks.parameters(path)
    if preset not in presets():
        raise InputError(f"Unknown preset {preset!r}: choose one of {', '.join(presets())}.")
    file = data_dir() / "presets" / f"{preset}.yaml"
    fix = "correct it, or restore it with 'git checkout data/presets'"
    read = read_yaml(file, fix)
    with reading(file, fix):
        wanted = read.get("requires") or []
        if wanted and not any(name in declared for name in wanted):
            raise InputError(
                f"{path.name} cannot run with preset {preset!r}, which sets "
                f"{' or '.join(map(repr, wanted))}: the notebook has no such parameter."
            )
        defaults = read.get("defaults") or {}
        chosen = {name: value for name, value in defaults.items() if name in declared}
        chosen |= (read.get("notebooks") or {}).get(notebooks.key(path)) or {}
    chosen |= given or {}
    for name in chosen:
        if name in OF_THE_RUN:
            raise InputError(f"Parameter {name!r} is set by the run: use {OF_THE_RUN[name]}.")
        if name not in declared:
            raise InputError(
                f"Unknown parameter {name!r} for {path.name}: it has {', '.join(declared)}."
            )
        chosen[name] = _typed(name, chosen[name], declared[name])
    if path.is_relative_to(notebooks.ROOT / "notebooks"):
        check_parameters(declared | chosen)
    return chosen


def read_values(path: str | Path, texts: dict[str, str]) -> dict[str, Any]:
    """Parameters as typed on a command line, {name: text}, in the type that the notebook declares.

    Text stays as it is where the default is text; elsewhere ``8`` is a number, ``["a", "b"]`` a
    list, ``None`` none, and what is no Python literal is text again. Where the default tells no
    type, digits with ``_`` between them are text, such as a date.

    Raises:
        InputError: no such notebook, or one without parameters.
    """
    declared = notebooks.parameters(notebooks.find(path))
    return {name: _read(text, declared.get(name)) for name, text in texts.items()}


def _read(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    date = default in (None, ...) and isinstance(value, int | float) and "_" in text
    return text if date else value


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
