"""Banks of templates that a prompt's embedding is averaged over, as StyleCLIP does."""

import re
from collections.abc import Sequence

from visiondx.core.errors import InputError

BANKS = ("imagenet", "simple")  # CLIP's 80 templates for ImageNet's classes, and the 7 best of them


def filled(prompts: Sequence[str], templates: Sequence[str] | str) -> list[list[str]]:
    """Each prompt in every template: P lists of texts.

    The templates of a bank bring their own article, "a bad photo of a {}.", so that of a prompt is
    left out there: "a face with bangs" gives "a bad photo of a face with bangs.".

    Args:
        templates: a bank's name, or texts that hold {} once, where the whole prompt goes.

    Raises:
        InputError: no such bank, or a text without {}.
    """
    if isinstance(templates, str):
        templates = bank(templates)
        prompts = [re.sub(r"^(an?|the)\s+", "", prompt.strip(), flags=re.I) for prompt in prompts]
    bad = [t for t in templates if t.count("{}") != 1]
    if bad:
        raise InputError(f"A template holds {{}} once, where the prompt goes; got {bad[0]!r}.")
    return [[t.replace("{}", p) for t in templates] for p in prompts]


def bank(name: str) -> list[str]:
    """The templates of a bank, open_clip's copy of CLIP's.

    Raises:
        InputError: no such bank.
    """
    if name not in BANKS:
        raise InputError(f"templates must be {' or '.join(BANKS)}, or texts, got {name!r}.")
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    each = {"imagenet": OPENAI_IMAGENET_TEMPLATES, "simple": SIMPLE_IMAGENET_TEMPLATES}[name]
    return [template("{}") for template in each]
