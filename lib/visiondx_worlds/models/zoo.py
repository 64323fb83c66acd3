"""Where weights come from: ``data/weights/*.safetensors`` and the manifest vouching for them.

Names are read without torch, which takes seconds to import, so that a wrong one is refused at once.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from visiondx.core.errors import InputError, reason
from visiondx.core.files import atomic_write, data_dir, reading, sha256

if TYPE_CHECKING:
    from torch import Tensor

_SCALE = "|scale"  # of an int8 tensor, after its key
_LIBRARIES = ("torchvision", "safetensors", "open_clip_torch")


def save(
    name: str,
    tensors: Mapping[str, Tensor],
    config: dict,
    *,
    notebook: str,
    seed: int,
    quality: dict,
    eight_bits: bool = False,
) -> Path:
    """Write ``<name>.safetensors`` (floating tensors as fp16) and its manifest entry.

    Args:
        config: JSON values, whatever the model's ``load`` needs to build the module again.
        notebook: the notebook under ``notebooks/`` that made the weights.
        quality: measured figures, for readers of the manifest.
        eight_bits: floating tensors of two or more dimensions as int8 instead, with a scale for
            each index of the first: half the size, for models of which there are many.

    Raises:
        InputError: a value is not finite as fp16.
    """
    import torch
    from safetensors.torch import save_file

    stored = {}
    for key, value in tensors.items():
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.half()
            if not value.isfinite().all():
                raise InputError(
                    f"Tensor '{key}' of '{name}' does not fit fp16: its values must be finite "
                    "and below 65,504."
                )
            if eight_bits and value.ndim > 1:
                value, stored[key + _SCALE] = _to_eight_bits(value)
        # a fresh plain copy: safetensors refuses shared memory and other memory formats
        stored[key] = value.clone(memory_format=torch.contiguous_format)
    path = _folder() / f"{name}.safetensors"
    with atomic_write(path) as temporary:
        save_file(stored, temporary)
    vouch(name, path, config, notebook=notebook, seed=seed, quality=quality)
    return path


def vouch(name: str, path: Path, config: dict, *, notebook: str, seed: int, quality: dict) -> None:
    """Write the manifest entry of a file that lies under ``data/weights``; arguments as ``save``'s.

    For weights in another library's format, which ``load`` does not read but `vouched` checks.
    """
    entries = manifest()
    entries[name] = {
        "file": path.relative_to(_folder()).as_posix(),
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "config": config,
        "notebook": notebook,
        "seed": seed,
        "quality": quality,
        "versions": _versions(),
    }
    _write_manifest(entries)


def set_quality(name: str, quality: dict) -> None:
    """Put figures that were measured after ``save`` into the manifest.

    Raises:
        InputError: the name is unknown.
    """
    entries = manifest()
    if name not in entries:
        raise InputError(f"No weights named '{name}' in {_folder()}: save them first.")
    entries[name]["quality"] = quality
    _write_manifest(entries)


def vouched(name: str) -> Path:
    """The file of ``name``, its sha256 checked.

    Raises:
        InputError: the name is unknown, or the file is missing or altered.
    """
    entry, path = _entry(name)
    if not path.is_file():
        raise InputError(
            f"Weights '{name}' are in the manifest, but {path} is missing: {_fix(entry)}."
        )
    if sha256(path) != entry["sha256"]:
        raise InputError(f"{path} was altered (its sha256 is not the manifest's): {_fix(entry)}.")
    return path


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    """Tensors (floating ones as float32) and config of ``name``, its sha256 checked.

    Raises:
        InputError: the name is unknown, or the file is missing, altered or damaged.
    """
    from safetensors.torch import load_file

    path, (entry, _) = vouched(name), _entry(name)
    with reading(path, _fix(entry)):
        tensors = load_file(path)
        scaled = [key for key in tensors if key.endswith(_SCALE)]
        scales = {key.removesuffix(_SCALE): tensors.pop(key) for key in scaled}
        tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        for key, scale in scales.items():
            value = tensors[key]
            tensors[key] = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
    return tensors, entry["config"]


@contextmanager
def opened(name: str) -> Iterator[tuple[dict[str, Tensor], dict]]:
    """``load``, for a block that builds a model of the two.

    Raises:
        InputError: see ``load``; or the config lacks something, or the tensors are another model's.
    """
    tensors, config = load(name)
    entry, path = _entry(name)
    with reading(f"{path} or its entry in manifest.json", _fix(entry)):
        yield tensors, config


def manifest() -> dict[str, dict]:
    """All manifest entries by name; empty before the first `save`.

    Raises:
        InputError: a file that is no manifest, or an entry that lacks what ``load`` needs.
    """
    path = _folder() / "manifest.json"
    if not path.is_file():
        return {}
    fix = "restore it with 'git checkout data/weights'"
    with reading(path, fix):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({reason(error)}): {fix}.") from error
        for name, entry in entries.items():
            for key, kind in (("file", str), ("sha256", str), ("config", dict)):
                if not isinstance(entry.get(key), kind):
                    raise InputError(f"{path} is damaged (its entry '{name}' has no {key}): {fix}.")
    return entries


def choose(kind: str, name: str, names: Sequence[str]) -> None:
    """Raises InputError unless ``name`` is one of the names of this kind of weights."""
    if name not in names:
        raise InputError(f"No {kind} {name!r}: choose from {', '.join(names) or 'none'}.")


def _entry(name: str) -> tuple[dict, Path]:
    """What the manifest says of a name, and where its weights are."""
    entries = manifest()
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise InputError(f"No weights named '{name}' in {_folder()}: choose from {known}.")
    return entries[name], _folder() / entries[name]["file"]


def _fix(entry: Mapping) -> str:
    again = f" or make it again with notebooks/{entry['notebook']}" if "notebook" in entry else ""
    return f"restore it with 'git checkout data/weights'{again}"


def _to_eight_bits(value: Tensor) -> tuple[Tensor, Tensor]:
    """int8 of the same shape, and the float32 scale of each index of the first dimension."""
    import torch

    value = value.float()
    scale = (value.flatten(1).abs().amax(1) / 127).clamp_min(1e-12)
    return (value / scale.view(-1, *[1] * (value.ndim - 1))).round().to(torch.int8), scale


def _write_manifest(entries: Mapping[str, dict]) -> None:
    with atomic_write(_folder() / "manifest.json") as temporary:
        text = json.dumps(dict(sorted(entries.items())), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _folder() -> Path:
    return data_dir() / "weights"


def _versions() -> dict[str, str]:
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions
