"""The file that a person's model comes from, and its folder."""

import hashlib
import importlib.util
import inspect
import os
import pickle
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import ModuleType

from visiondx.core.errors import InputError, reason

INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")})
OURS = __name__.partition(".")[0]


class Home:
    """A folder whose files can be imported inside ``with home.open():``, as a script's own can.

    Two models may each have a ``utils.py``: the other's is put aside meanwhile.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        names = {path.stem for path in self.folder.iterdir() if _importable(path)}
        self._names = tuple(sorted(names - set(sys.stdlib_module_names) - {OURS}))
        self._modules: dict[str, ModuleType] = {}  # ours, while another's of that name is in use

    def __deepcopy__(self, memo: dict) -> "Home":
        return self  # all copies of a target share it

    @contextmanager
    def open(self) -> Iterator[None]:
        """While the block runs, imports look here first."""
        aside = {name: sys.modules.pop(name) for name in self._foreign()}
        sys.modules.update(self._modules)
        sys.path.insert(0, str(self.folder))
        try:
            yield
        finally:
            if str(self.folder) in sys.path:
                sys.path.remove(str(self.folder))
            if aside:
                clash = {name.partition(".")[0] for name in aside}
                own = [name for name in sys.modules if name.partition(".")[0] in clash]
                self._modules = {name: sys.modules.pop(name) for name in own}
                sys.modules.update(aside)

    def _foreign(self) -> list[str]:
        """Imported modules that have a name of ours, but come from somebody else's folder."""
        clash = {n for n in self._names if n in sys.modules and self._is_foreign(sys.modules[n])}
        return [n for n in sys.modules if n.partition(".")[0] in clash] if clash else []

    def _is_foreign(self, module: ModuleType) -> bool:
        where = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
        return bool(where) and not where.startswith((f"{self.folder}{os.sep}", *INSTALLED))


def call(path: Path, function: str) -> tuple[object, Home]:
    """Import the file under a name of its own and call its function, in the file's own folder.

    While it runs, the folder is the working directory and can be imported from.

    Returns:
        What the function returned, and the folder.

    Raises:
        InputError: no such file or function, one that needs arguments, or one that fails.
    """
    if not path.is_file():
        raise InputError(f"No file at {path}: check the path of the target.")
    home, whole = Home(path.parent), str(path.resolve())
    key = hashlib.sha256(whole.encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"visiondx_target_{path.stem}_{key}", whole)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses and pickled classes in the file look it up
    with home.open(), chdir(home.folder):
        try:
            spec.loader.exec_module(loaded)
            return _function(loaded, path, function)(), home
        except InputError:
            raise
        except Exception as error:
            raise InputError(_failure(path, function, error)) from error


def _function(loaded: ModuleType, path: Path, name: str) -> Callable[[], object]:
    found = getattr(loaded, name, None)
    if not callable(found):
        raise InputError(f"{path} has no function {name!r}: check the name after the colon.")
    try:
        inspect.signature(found).bind()
    except ValueError:  # some callables have no signature
        pass
    except TypeError as error:
        raise InputError(
            f"{path}:{name} is called without arguments and misses one ({error}): give each a "
            "default."
        ) from None
    return found


def _failure(path: Path, function: str, error: Exception) -> str:
    said = f"{path}:{function} failed with {reason(error)}"
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"{path}:{function} reads a file that is not plain weights, but damaged or a pickle of "
            "whole objects, which could run any code: let its maker save module.state_dict(), and "
            "read that with load_state_dict."
        )
    if isinstance(error, RuntimeError) and re.search(r"(eval|train)\(\)", str(error)):
        return (
            f"{said}: an exported module keeps the mode that it was exported in, so leave that out."
        )
    if isinstance(error, FileNotFoundError):
        return f"{said}: it runs in its own folder, so write paths as seen from {path.parent}."
    if isinstance(error, ImportError):
        return f"{said}: install it into this environment, or put its file beside {path.name}."
    return (
        f"{said}: make it run by itself first, python -c 'import {path.stem}; "
        f"{path.stem}.{function}()' in {path.parent}."
    )


def _importable(path: Path) -> bool:
    module = path.suffix == ".py" or (not path.suffix and path.is_dir())
    return module and path.stem.isidentifier()
