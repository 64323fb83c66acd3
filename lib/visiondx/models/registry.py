"""Models known by a name, such as the embedded ones: what installed packages offer.

A package offers models by an entry point of the group ``visiondx.models``: a module with any of the
functions ``target(name)``, ``encoder(name, device)``, ``generator(name)``, ``segmenter(name)``,
``painter(name, device)``, ``painter_size(name)`` of a painter that is not loaded, and
``relevance(generator, encoder)``; ``targets(task, world)``, ``encoders()``, ``generators()``,
``segmenters()`` and ``painters()`` give the names that are shown, ``unlisted(kind)`` those that
load as well;
``check_texts(encoder, texts)`` refuses texts that are too long. This package itself holds no
weights.
"""

import sys
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from visiondx.core.errors import InputError

GROUP = "visiondx.models"
WHOLE = ("local-dir:", "hf-hub:")  # encoders that bring their weights
WEIGHTS = (".pkl", ".pt", ".pth", ".safetensors")  # endings of files with weights


@cache
def providers() -> tuple[ModuleType, ...]:
    """The modules that offer models, in the order of their entry points' names."""
    return tuple(point.load() for point in sorted(entry_points(group=GROUP), key=lambda p: p.name))


def ask(kind: str, *given: object) -> object:
    """What the first provider that has it gives: ``ask("encoder", "embedded", "cpu")``.

    Raises:
        InputError: no provider of this kind, or what a provider refuses.
    """
    for provider in providers():
        if hasattr(provider, kind):
            return getattr(provider, kind)(*given)
    raise InputError(
        f"There is no {kind} {given[0]!r}: no installed package offers one by name; "
        "name a file of your own."
    )


def offered(kind: str, *wanted: object) -> list[str]:
    """Names of all ``kind``, such as "targets" of a task; none where nobody offers any."""
    return [n for p in providers() if hasattr(p, kind) for n in getattr(p, kind)(*wanted)]


def names_file(name: str) -> bool:
    """Whether this means a file with weights, not a name: it ends as one, or holds a "/"."""
    return "/" in name or name.lower().endswith(WEIGHTS)


def check_name(kind: str, name: str, *wanted: object) -> None:
    """Raise InputError unless somebody offers this "target", "encoder" or "generator".

    No model is loaded, so this takes no time.

    Args:
        wanted: of a target, the task and the world of those that the message names.
    """
    known = offered(f"{kind}s")
    if name in known:
        return
    if any(name in p.unlisted(kind) for p in providers() if hasattr(p, "unlisted")):
        return
    known = offered(f"{kind}s", *wanted) or known
    own = {
        "target": "path/to/file.py:function",
        "generator": "path/to/network.pkl",
        "painter": "path/to/stable-diffusion",
    }.get(kind)
    own = f', or name your own as "{own}"' if own else ""
    raise InputError(f"No {kind} {name!r}: choose from {', '.join(known) or 'none'}{own}.")


def check_encoder(name: str, weights: str = "") -> None:
    """Refuse what ``Encoder.load`` could not load, by its name and files alone: a moment.

    Raises:
        InputError: neither an embedded encoder nor one of open_clip's, weights that do not go with
            it, or a file or folder that is not there.
    """
    embedded = offered("encoders")
    if name in embedded:
        if weights:
            raise InputError(
                f"The encoder {name!r} comes with its weights: leave out {weights!r}, or name an "
                "architecture of open_clip."
            )
        return
    if name.startswith(WHOLE):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if name.startswith("local-dir:") and not folder.is_dir():
            raise InputError(f"Encoder {name!r}: there is no folder {folder}.")
        return
    known = architectures()
    if name not in known:
        if Path(name).expanduser().is_file():
            raise InputError(
                f"Encoder {name!r} is a file, which does not tell its architecture: name that, "
                "such as 'ViT-B-32', and give the file as its weights."
            )
        near = get_close_matches(name, known, 3) or ["ViT-B-32"]
        raise InputError(
            f"No encoder {name!r}: choose from {', '.join([*embedded, *near])}, any other "
            "architecture of open_clip, or a folder as 'local-dir:PATH'."
        )
    if not weights:
        raise InputError(
            f"Encoder {name!r} needs weights: a tag of open_clip, such as 'openai', or a file."
        )
    if ("/" in weights or Path(weights).suffix) and not Path(weights).expanduser().is_file():
        raise InputError(f"Encoder {name!r}: there is no file {weights}.")


def architectures() -> list[str]:
    """The names that open_clip has settings for, read from its folder: importing it takes long.

    Where it is imported already, those that were added to it as well.
    """
    if "open_clip" in sys.modules:
        return sorted(sys.modules["open_clip"].list_models())
    folder = Path(find_spec("open_clip").origin).parent / "model_configs"
    return sorted(path.stem for path in folder.glob("*.json"))


def check_texts(encoder: str, texts: list[str]) -> None:
    """Raise InputError for a text that the encoder of this name does not read whole.

    As ``check_name``, it loads no model. Who offers the encoder is asked.
    """
    for provider in providers():
        if hasattr(provider, "check_texts"):
            provider.check_texts(encoder, texts)


def kept(kind: str, *given: object) -> object | None:
    """The first that a provider has ready, such as a relevance matrix; None if nobody has it."""
    for provider in providers():
        if hasattr(provider, kind) and (found := getattr(provider, kind)(*given)) is not None:
            return found
    return None
