"""Where data lives, how files are written so that a half-written one never looks whole, and what is
said of a damaged one.
"""

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from visiondx.core.errors import InputError, reason

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
USER = "user"  # as a folder of what is kept: ``cache_dir()``


def data_dir() -> Path:
    """The repository's ``data/``: ``$VISIONDX_DATA`` if set, else beside the source root ``lib/``.

    Raises:
        InputError: the folder does not exist.
    """
    named = os.environ.get("VISIONDX_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[3] / "data"
    if not path.is_dir():
        raise InputError(
            f"No data folder at {path}: the embedded models and the notebooks need a checkout of "
            "visiondx; set VISIONDX_DATA to its data/."
        )
    return path


def cache_dir() -> Path:
    """The user's folder for results that took long and can be made again; it may not exist yet.

    ``$VISIONDX_CACHE`` if set, else ``visiondx`` in ``$XDG_CACHE_HOME`` if that is an absolute
    path, else where the system keeps caches: ``~/.cache``, ``~/Library/Caches`` on macOS,
    ``%LOCALAPPDATA%`` on Windows.
    """
    if named := os.environ.get("VISIONDX_CACHE"):
        return Path(named).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the standard has relative ones ignored
        home = Path.home()
        base = home / ".cache"
        if sys.platform == "darwin":
            base = home / "Library" / "Caches"
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return base / "visiondx"


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


@contextmanager
def reading(path: str | os.PathLike, fix: str) -> Iterator[None]:
    """Round a block that reads a file and takes its values apart: damage is said in one sentence.

    Args:
        fix: what to do about it, such as "restore it with 'git checkout data'".

    Raises:
        InputError: the block raised anything (readers raise many kinds); its own InputErrors pass.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        state = "cannot be read" if isinstance(error, OSError) else "is damaged"
        why = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
        raise InputError(f"{path} {state} ({why}): {fix}.") from error


def read_kept(path: str | os.PathLike | None, read: Callable[[Path], T]) -> T | None:
    """What ``read`` makes of a kept file; None where there is none, to be made then.

    A damaged one counts as none, for making it again is the fix; a warning names it.
    """
    if path is None or not os.path.lexists(path):
        return None
    try:
        return read(Path(path))
    except MemoryError:
        raise
    except Exception as error:
        warnings.warn(f"{path} is damaged ({reason(error)}): it is made again.", stacklevel=2)
        return None


def read_yaml(path: str | os.PathLike, fix: str = "restore it with 'git checkout data'") -> dict:
    """A YAML file that holds a mapping.

    Raises:
        InputError: no such file, or one that holds something else.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file at {path}: {fix}.")
    with reading(path, fix):
        text = path.read_text("utf-8")
        try:
            found = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise InputError(
                f"{path} is no YAML in line {line} ({error.problem}): {fix}."
            ) from error
    if not isinstance(found, dict):
        what = "nothing" if found is None else type(found).__name__
        raise InputError(f"{path} must hold a mapping ('name: value' lines), not {what}: {fix}.")
    return found


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


def result_key(method: int | Sequence[int], *given: object) -> str:
    """What a kept result is named by: 20 hex digits of what made it.

    Args:
        method: the version of the method, a constant beside its code, or those of several. Raise it
            with every change that gives another result for the same input; what was kept is then
            not found any more.
        given: all that the result depends on besides: settings, seeds, fingerprints, as JSON.
    """
    return hashlib.sha256(json.dumps([method, *given]).encode()).hexdigest()[:20]


def digest(**tensors: "Tensor") -> str:
    """A short hash of names and values of tensors: keys what was computed from them."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
