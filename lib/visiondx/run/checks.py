"""What is wrong with a notebook's parameters, before a kernel starts: numbers, words and names.

Looked at by their names, which mean the same in every notebook. Torch is not needed, so a refusal
takes no time; what a model or an encoder must say is tried in the notebook.
"""

import ast
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.core.seeds import check_seed
from visiondx.core.words import check_list, check_prompts, check_words, no_neutral
from visiondx.llm2loss.question import check_question, check_source, sentences_of
from visiondx.models import registry
from visiondx.models.image_files import files
from visiondx.run.benchmark_checks import EMBEDDED, absolute_model, check_benchmark
from visiondx.run.explain_checks import check_explanation, check_painter, check_segmenter
from visiondx.run.interface_checks import check_interface

DIRECTIONS = ("auto", "relevance", "gradient")  # `zoom.estimate.CHOICES`, which needs torch
TEMPLATES = ("imagenet", "simple")  # `zoom.templates.BANKS`, which needs torch
LEAST = {"images": 2, "truth_images": 2}  # an interval needs two; of other counts, one is enough
COUNTS = ("images", "steps")


def check_parameters(values: Mapping[str, Any]) -> None:
    """Look at all parameters of a notebook: {name: value}, ``...`` where it is not known.

    Raises:
        InputError: for the first that no notebook could use.
    """
    for name, value in values.items():
        last = name.rpartition("_")[2]
        for number in _numbers(value):
            if not math.isfinite(number):
                raise InputError(f"Parameter {name!r} must be finite, got {number}.")
            if last == "truncation" and not 0 < number <= 1:
                raise InputError(f"Parameter {name!r} must be above 0, at most 1, got {number}.")
            if last in ("seed", "seeds"):
                check_seed(number, f"Parameter {name!r}")
            if last in COUNTS and number < LEAST.get(name, 1):
                raise InputError(
                    f"Parameter {name!r} must be {LEAST.get(name, 1)} or more, got {number}."
                )
        if name in ("attributes", "prompts") and isinstance(value, list):
            check_words(value)
    _check_question(values)


def _check_question(values: Mapping[str, Any]) -> None:
    """What a diagnosis asks: words, and the names of models."""
    attributes, neutral = values.get("attributes"), values.get("neutral")
    if isinstance(attributes, list) and isinstance(neutral, str):
        check_prompts(attributes, neutral)
    held = values.get("consistency")
    if isinstance(held, list) and held:
        if len(held) != 2:
            raise InputError(f"consistency takes two prompts, present and absent, got {held!r}.")
        check_words(held, "The two prompts of consistency")
    index = values.get("class_index")
    if index not in (None, ...) and (not isinstance(index, int) or index < 0):
        raise InputError(f"class_index must be a whole number from 0, got {index!r}.")
    how = values.get("directions")
    if isinstance(how, str) and how not in DIRECTIONS:
        raise InputError(f"directions must be {' or '.join(DIRECTIONS)}, got {how!r}.")
    bank = values.get("templates")
    if isinstance(bank, str) and bank and bank not in TEMPLATES:
        raise InputError(f"templates must be {' or '.join(TEMPLATES)}, or texts, got {bank!r}.")
    if values.get("generator") == "":
        raise InputError(
            "No generator is named: give the file of one as generator, such as path/to/ffhq.pkl."
        )
    if isinstance(values.get("generator"), str):
        check_generator(values["generator"])
        _check_words(values)
    if isinstance(values.get("encoder"), str):
        weights = values.get("encoder_weights")
        registry.check_encoder(values["encoder"], weights if isinstance(weights, str) else "")
    lists = [each for each in (attributes, held, [neutral]) if isinstance(each, list)]
    texts = [text for each in lists for text in each if isinstance(text, str)]
    if texts and isinstance(values.get("encoder"), str):
        registry.check_texts(values["encoder"], texts)
    if isinstance(values.get("photographs"), str) and values["photographs"]:
        check_photographs(values["photographs"])
    _check_target(values)
    _check_losses(values)
    check_explanation(values)
    check_benchmark(values)
    check_interface(values)


def _check_words(values: Mapping[str, Any]) -> None:
    """Where the words for a generator's pictures come from."""
    words = values.get("words")
    if isinstance(words, str) and words:
        check_list(words)
    own = values["generator"] not in registry.offered("generators")
    if own and words == "" and values.get("neutral", "") is None:
        raise no_neutral()


def _check_losses(values: Mapping[str, Any]) -> None:
    """What is asked of a table of losses, or of a model over a labelled folder."""
    if "compare" not in values or "ask" not in values:
        return
    asked = [values.get(name) for name in ("ask", "compare", "attributes")]
    source = [values.get(name) or "" for name in ("table", "model", "image_folder")]
    check_source(*source)
    if all(each is None for each in asked) and not any(source):
        return  # the demo asks for itself
    lists = [each or [] for each in asked]
    check_question(*lists)
    if isinstance(values.get("encoder"), str):
        registry.check_texts(values["encoder"], sentences_of(*lists))


def _task(values: Mapping[str, Any]) -> Any:
    """The target's: as given, else what explanations and diagnoses are of."""
    return values.get("task", "multiclass" if "what" in values else "binary")


def _check_target(values: Mapping[str, Any]) -> None:
    """The target, if there is one; "" stands for those that a notebook names itself."""
    target, generator = values.get("target"), values.get("generator")
    painter = values.get("painter")
    if not isinstance(target, str):
        return
    if target:
        task = _task(values)
        check_target(
            target, *(each if isinstance(each, str) else None for each in (task, generator))
        )
    elif isinstance(generator, str) and generator not in registry.offered("generators"):
        raise InputError(
            "The embedded targets never saw pictures of this generator: name your own as target, "
            '"path/to/file.py:function".'
        )
    elif values.get("painter") == "":
        raise InputError("No painter is named: give the folder of a Stable Diffusion as painter.")
    elif isinstance(painter, str) and painter not in registry.offered("painters"):
        raise InputError(
            "The embedded targets never saw pictures of this painter: name your own as target, "
            '"path/to/file.py:function".'
        )


def check_photographs(folder: str | Path) -> str:
    """The absolute path of a folder of photographs; which of them can be read is seen later.

    Raises:
        InputError: no such folder, or fewer than 2 images in it.
    """
    path = Path(folder).expanduser().resolve()
    if len(files(path)) < LEAST["images"]:
        raise InputError(
            f"There is one image in {path}, and a diagnosis needs {LEAST['images']}: add some, or "
            "give images as a number, to start from the generator's own."
        )
    return str(path)


def check_target(spec: str, task: str | None = None, world: str | None = None) -> str:
    """``file.py:function`` with the file's absolute path, or the name of an embedded target.

    The file is read, not run.

    Args:
        task, world: of the embedded targets that are named where this one is unknown.

    Raises:
        InputError: no such file, function or name; a file that is not Python.
    """
    if ".py" not in spec and "/" not in spec:
        registry.check_name("target", spec, task, world)
        return spec
    file, _, function = spec.rpartition(":")
    if not file.endswith(".py") or not function:
        raise InputError(f"Target {spec!r} names no function: write path/to/file.py:function.")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"Target {spec!r}: there is no file {path}.")
    try:
        source = path.read_text("utf-8")
        ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"Target {spec!r}: the file is not Python ({error}).") from None
    if function not in source:
        raise InputError(f"{path} has no function {function!r}: check the name after the colon.")
    return f"{path}:{function}"


def check_generator(spec: str) -> str:
    """The absolute path of a generator's file, or the name of an embedded generator.

    The file is not read.

    Raises:
        InputError: no such file or name.
    """
    if not registry.names_file(spec):
        registry.check_name("generator", spec)
        return spec
    path = Path(spec).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"Generator {spec!r}: there is no file {path}.")
    return str(path)


def absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that name files, with absolute paths: a run has another working folder.

    Raises:
        InputError: no such target, generator or photographs, see ``check_target`` and the others.
    """
    found = {}
    for name, value in values.items():
        if name == "models" and isinstance(value, list) and isinstance(values.get("images"), str):
            found[name] = [absolute_model(str(spec)) for spec in value]
        if not value or not isinstance(value, str):
            continue
        if name == "target":
            found[name] = check_target(value, str(_task(values)))
        elif name == "model":
            found[name] = check_target(value, "multiclass")
        elif name == "generator":
            found[name] = check_generator(value)
        elif name == "painter":
            found[name] = check_painter(value)
        elif name == "segmenter":
            found[name] = check_segmenter(value)
        elif name in ("table", "image_folder", "lora") or (name == "images" and value != EMBEDDED):
            found[name] = str(Path(value).expanduser().resolve())
        elif name == "photographs":
            found[name] = check_photographs(value)
        elif name == "encoder" and value.startswith("local-dir:"):
            folder = Path(value.removeprefix("local-dir:")).expanduser()
            found[name] = f"local-dir:{folder.resolve()}"
        elif name in ("encoder_weights", "masks") and Path(value).expanduser().exists():
            found[name] = str(Path(value).expanduser().resolve())
    return found


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers that a value holds, but for truth values."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
