"""Where data lives, and how files are written so that a half-written one never looks whole."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from visiondx.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def data_dir() -> Path:
    """The repository's ``data/``: ``$VISIONDX_DATA`` if set, else beside the source root ``lib/``.

    Raises:
        InputError: the folder does not exist.
    """
    named = os.environ.get("VISIONDX_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[3] / "data"
    if not path.is_dir():
        raise InputError(
            f"No data folder at {path}: set VISIONDX_DATA to the data/ of a visiondx checkout."
        )
    return path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` only if the block succeeds.

    Parent folders are made. The temporary name keeps the suffix, because writers such as
    matplotlib choose the format by it. On an error the temporary file is removed and an
    existing ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; a shared result is not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file's bytes.

    Raises:
        InputError: the file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file at {path}: check the path.")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(**tensors: "Tensor") -> str:
    """A short hash of names and values of tensors: keys what was computed from them."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
