"""Every word tried: what a target says of the pictures that are painted of each.

What a search for one word would come to with no limit of time: a picture has no gradient to lose.
As many pictures are painted as there are words and noises, so a vocabulary of hundreds can be
tried, one of tens of thousands cannot. It is what hard prompts (DiffExplainer, section 4.4) are
held against.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, read_kept, result_key
from visiondx.core.seeds import check_seed
from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.kept import SAVE_SECONDS, kept_file, search_key
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.painting import noise_of, paint
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.models.painter import Painter
from visiondx.search.objective import check_finite

METHOD = 1  # raised with every change that gives another result


@torch.no_grad()
def tried(
    painter: Painter,
    template: str,
    words: Words,
    aims: Sequence[Objectives],
    noises: int = 16,
    *,
    seed: int = 0,
    batch: int = 64,
    kept: str | Path | None = None,
) -> list[Tensor]:
    """Of each target's E aims, the mean loss of every word on the same noises: (E, W) each.

    Args:
        template: with ``{t}``, where each of the W words stands by itself.
        aims: of one or several targets, which see the same pictures.
        noises: pictures a word, the same for all. batch: pictures at once.
        kept: a folder that keeps what is known so far: a killed run goes on.

    Raises:
        InputError: see ``SoftPrompt.parse``; no aims, no noises, or more of these than the batch
            holds; a file for a folder.
        FloatingPointError: a loss that is NaN or infinite; names the word.
    """
    check_seed(seed)
    if not aims:
        raise InputError("No aims were given to try the words for.")
    if not 1 <= noises <= batch:
        raise InputError(f"noises is {noises}: give 1 or more, and no more than batch, {batch}.")
    prompt = SoftPrompt.parse(painter, template)
    made_of = template, words.texts, noises, seed
    file = None
    if kept is not None:
        file = kept_file(
            kept, "tried", result_key(*(_key(painter, each, *made_of) for each in aims))
        )
    losses = _start(file, [len(each) for each in aims], len(words))
    noise, saved = noise_of(painter, noises, seed), time.monotonic()
    left = losses[0][0].isnan().nonzero().flatten()
    with tqdm(total=len(words), initial=len(words) - len(left), desc="words") as bar:
        for part in left.split(batch // noises) if len(left) else ():
            images = paint(painter, prompt, words.matrix[part][:, None], noise)
            for each, found in zip(aims, losses, strict=True):
                own = each(images.flatten(0, 1)[None])[0]  # (E, P N)
                found[:, part] = own.unflatten(1, (-1, noises)).mean(2).float().cpu()
                check_finite(
                    {"loss": found[:, part].T},
                    "of its pictures",
                    lambda row, part=part: words.texts[int(part[row])],
                )
            bar.update(len(part))
            if file is not None and time.monotonic() - saved > SAVE_SECONDS:
                _save(file, losses)
                saved = time.monotonic()
    if file is not None:
        _save(file, losses)
    return losses


def then_tried(
    likelihood: Tensor, texts: Sequence[str], losses: Tensor, tried: Sequence[str], count: int
) -> Tensor:
    """(E, W): the likeliest words of a search in the order of their own losses, then the others.

    What a search draws ever more surely, it has seen on few pictures; so its likeliest words are
    tried, which can be done in any vocabulary.

    Args:
        likelihood: (E, W) of the W `texts`. losses: (E, V) of the V words `tried`, see `tried`.
        count: words of each aim, which are among those that were tried.

    Raises:
        InputError: a count below 1 or above W, or a word that was not tried.
    """
    if not 1 <= count <= len(texts):
        raise InputError(f"{count} words are to be tried: give a number from 1 to {len(texts)}.")
    at = {word: column for column, word in enumerate(tried)}
    best = likelihood.topk(count).indices
    missing = [texts[w] for w in best.unique().tolist() if texts[w] not in at]
    if missing:
        raise InputError(f"{', '.join(map(repr, missing[:10]))} were not tried: try them, too.")
    columns = torch.tensor([at.get(word, 0) for word in texts])[best]
    own = -losses.gather(1, columns)
    below = likelihood - likelihood.amax(1, keepdim=True) + own.amin(1, keepdim=True) - 1
    return below.scatter(1, best, own)


def _key(painter: Painter, aims: Objectives, *given: object) -> str:
    return search_key(painter, aims.target, METHOD, aims.names, *given)


def _start(file: Path | None, rows: list[int], words: int) -> list[Tensor]:
    """(E, W) each, as the file has them, or NaN where there is none."""
    found = read_kept(file, load_file)
    if found is None:
        return [torch.full((count, words), torch.nan) for count in rows]
    return [found[str(number)] for number in range(len(rows))]


def _save(file: Path, losses: list[Tensor]) -> None:
    with atomic_write(file) as path:
        save_file({str(number): each for number, each in enumerate(losses)}, path)
