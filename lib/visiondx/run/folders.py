"""The folder of a run: worked in by one run at a time, and changed only by a run that is whole.

A run works in ``<out>/unfinished_run`` and moves up when it is done, taking the place of the files
that the run before it made, and of no other file. One that fails or is interrupted becomes
``<out>/failed_run``. What notebooks keep in ``kept/``, to resume, goes from run to run.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visiondx.core.errors import InputError

UNFINISHED, FAILED, KEPT = "unfinished_run", "failed_run", "kept"
RECORD = "run.json"  # comes last, so a folder that has one is whole
OLDER = ("executed.ipynb", "report.html", "metrics.json")  # of a record without a list of files


@contextmanager
def claimed(out: Path) -> Iterator[Path]:
    """Hold ``out`` against other runs; gives the empty folder to work in.

    The lock is the system's own on ``<out>/.lock``, so it ends with the process that held it.

    Raises:
        InputError: ``out`` cannot be written to, or another run is at work there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"A run cannot be written to {out} ({error.strerror}): choose another folder."
        ) from None
    with lock:
        _lock(lock, out)
        work = out / UNFINISHED
        if work.exists():  # of a run that was killed
            set_aside(work)
        work.mkdir()
        if (out / KEPT).is_dir():
            os.replace(out / KEPT, work / KEPT)
        try:
            yield work
        finally:
            if work.exists():
                set_aside(work)


def publish(work: Path) -> None:
    """Move a whole run, ``run.json`` last, to where the earlier one was."""
    out = work.parent
    _return_kept(work)
    fresh = files(work)
    earlier = _made_earlier(out)
    (out / RECORD).unlink(missing_ok=True)
    for name in earlier:
        (out / name).unlink(missing_ok=True)
    for name in sorted(fresh, key=lambda name: name == RECORD):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / name, out / name)
    for folder in {(out / name).parent for name in earlier} - {out}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for done in (work, out / FAILED):
        shutil.rmtree(done, ignore_errors=True)


def set_aside(work: Path) -> Path:
    """Make an unfinished run the failed one, in the place of an earlier failed one."""
    failed = work.with_name(FAILED)
    _return_kept(work)
    shutil.rmtree(failed, ignore_errors=True)
    os.replace(work, failed)
    return failed


def files(folder: Path) -> list[str]:
    """Relative paths of all files below, without what is kept for the next run."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in found if path.parts[0] != KEPT)


def _lock(lock, out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        process = lock.read().strip() or "unknown"
        raise InputError(
            f"Another run is at work in {out} (process {process}): wait for it, or choose another "
            "folder."
        ) from None
    except OSError:
        return  # a file system without locks
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _return_kept(work: Path) -> None:
    if (work / KEPT).is_dir():
        (work.parent / KEPT).mkdir(exist_ok=True)
        for entry in (work / KEPT).iterdir():
            os.replace(entry, work.parent / KEPT / entry.name)
        (work / KEPT).rmdir()


def _made_earlier(out: Path) -> list[str]:
    """The files of the whole run that is in ``out``, as its record lists them."""
    try:
        listed = json.loads((out / RECORD).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        listed = OLDER
    inside = [str(name) for name in listed if not Path(str(name)).is_absolute()]
    return [name for name in inside if ".." not in Path(name).parts]
