"""The main job: a target and some attributes in words -> a diagnosis, ready to be reported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.seeds import check_seed
from visiondx.core.stats import Estimate
from visiondx.core.words import check_prompts
from visiondx.models.device import device_of
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.models.target import Target
from visiondx.zoom.agreement import spearman
from visiondx.zoom.directions import Directions, text_directions
from visiondx.zoom.estimate import CHANNELS, check_estimator, edit_directions
from visiondx.zoom.objective import Consistency
from visiondx.zoom.result import SearchResult, examples
from visiondx.zoom.search import SearchSettings, search
from visiondx.zoom.sensitivity import Sensitivity
from visiondx.zoom.tasks import task_of
from visiondx.zoom.verdict import measure, verdict

CHECKED = 4  # images that the target is tried on first


@dataclass(frozen=True)
class Diagnosis:
    """What was found. Where the truth is known, it has the prompts that were asked about."""

    sensitivity: Sensitivity
    result: SearchResult
    labels: tuple[str, ...]  # the target's
    truth: Sensitivity | None = None
    planted: str | None = None  # the prompt of the planted attribute, if the target has one

    @property
    def directions(self) -> Directions:
        return self.result.directions

    @property
    def what(self) -> str:
        """What h is a mean change of: "the model's probability of “male”"."""
        return measure(self.result.task, self.labels)

    @property
    def verdict(self) -> str:
        """What may be said, and what not; see ``zoom.verdict``."""
        return verdict(self.sensitivity, self.what)

    @property
    def heading(self) -> str:
        return "How sensitive the model is"

    @property
    def said(self) -> list[str]:
        """The verdict's lines."""
        return self.verdict.splitlines()

    def to_frame(self) -> pd.DataFrame:
        """See ``Sensitivity.to_frame``."""
        return self.sensitivity.to_frame()

    def plot(self, title: str = "") -> Figure:
        """The sensitivity histogram, with the truth where it is known."""
        return self.sensitivity.plot(self.truth, title)

    def metrics(self) -> dict[str, Estimate | float]:
        """Flat, for ``runs.record``: h of each prompt, in how many pairs CLIP and the judges see
        its edit, and the score against the truth.
        """
        measured = self.sensitivity
        found: dict[str, Estimate | float] = {
            f"h.{name}": h for name, h in zip(measured.attributes, measured.h, strict=True)
        }
        for key, reader in (("seen", measured.seen), ("judged", measured.judged)):
            if reader is not None:
                shares = zip(measured.attributes, reader.share, strict=True)
                found |= {f"{key}.{name}": share for name, share in shares if share.n}
        if self.planted:
            found["planted_rank"] = measured.place(self.planted)
            found["planted_apart"] = int(measured.apart and measured.place(self.planted) == 1)
        if self.truth is not None:
            for name, h in zip(self.truth.attributes, self.truth.h, strict=True):
                found[f"truth.{name}"] = h
            if self.planted in self.truth.attributes:
                found["truth.planted_rank"] = self.truth.place(self.planted)
            if len(self.truth.attributes) >= 3:
                found["truth.spearman"] = spearman(measured.of(self.truth.attributes), self.truth)
        return found

    def truth_frame(self) -> pd.DataFrame | None:
        """Measured and true sensitivity side by side, strongest truth first."""
        if self.truth is None:
            return None
        true = self.truth.to_frame()[["attribute", "h", "low", "high"]]
        measured = self.sensitivity.to_frame()[["attribute", "h"]]
        joined = true.merge(measured, on="attribute", suffixes=("_true", "_measured"))
        return joined.rename(columns={"low": "true_low", "high": "true_high"})

    def counterfactuals(self, pairs: int = 4) -> list[dict]:
        """Pairs of each attribute, as ``report.write_report`` takes them; see ``examples``."""
        return [
            {
                "attribute": self.result.attributes[n],
                "pairs": [
                    {
                        "original": _pixels(x),
                        "counterfactual": _pixels(edited),
                        "p_original": float(self.result.p_original[i]),
                        "p_counterfactual": float(self.result.p[i, n]),
                        "added": bool(self.result.w[i, n] > 0),
                        "random": 0 < place == len(chosen) - 1,
                    }
                    for place, (i, x, edited) in enumerate(
                        zip(
                            chosen,
                            self.result.originals(chosen),
                            self.result.images(chosen, n),
                            strict=True,
                        )
                    )
                ],
            }
            for n, chosen in examples(self.result.change, pairs, self.result.seed).items()
        ]

    def save(self, folder: str | Path) -> None:
        """sensitivity.csv, search.csv, search.safetensors and verdict.txt."""
        self.sensitivity.save(folder)
        self.result.save(folder)
        with atomic_write(Path(folder) / "verdict.txt") as path:
            path.write_text(self.verdict + "\n", encoding="utf-8")


def try_on(target: Target, generator, seed: int = 0) -> None:
    """``Target.check`` on a few of the generator's pictures, on whose device it is."""
    with torch.no_grad():
        images = generator.synthesize(generator.sample_styles(CHECKED, seed))
    target.check(images)


def check(
    target: Target,
    attributes: Sequence[str],
    neutral: str,
    generator,
    encoder,
    *,
    consistency: Sequence[str] | None = None,
    images: int = 32,
    seed: int = 100,
    directions: str = "auto",
    templates: Sequence[str] | str | None = None,
    truncation: float = 1.0,
    styles: Tensor | None = None,
) -> None:
    """Try everything that can be wrong with words, target and numbers; a second or two.

    Moves the target to the generator's device. The arguments are those of ``diagnose``.

    Raises:
        InputError: for the first thing that is wrong.
    """
    task_of(target)
    check_prompts(attributes, neutral)
    check_estimator(directions)
    if styles is not None:
        check_given(styles, generator)
    else:
        check_seed(seed)
        if not isinstance(images, int) or images < 2:
            raise InputError(f"A diagnosis needs at least 2 images for an interval, got {images}.")
    text_directions(encoder, attributes, neutral, templates)
    if consistency:
        Consistency(encoder, consistency)
    target.to(generator.style_mean.device)
    if styles is None:
        styles = generator.sample_styles(CHECKED, seed, truncation)
    target.check(generator.synthesize(styles[:CHECKED].to(generator.style_mean)))


def check_given(styles: Tensor, generator) -> None:
    """Raise InputError unless styles are (B, c_S) of this generator, finite, and 2 or more."""
    if styles.ndim != 2 or styles.shape[1] != generator.num_styles or len(styles) < 2:
        raise InputError(
            f"styles must have shape (B, {generator.num_styles}) with B of 2 or more, for an "
            f"interval, got {tuple(styles.shape)}."
        )
    if not bool(torch.isfinite(styles).all()):
        raise InputError("The given styles hold NaN or infinity: project the photographs again.")


def diagnose(
    target: Target | nn.Module | str,
    attributes: Sequence[str],
    neutral: str,
    generator="faces",
    encoder="embedded",
    *,
    consistency: Sequence[str] | None = None,
    images: int = 32,
    seed: int = 100,
    settings: SearchSettings | None = None,
    directions: str = "auto",
    threshold: float | Sequence[float] | None = None,
    channels: int = CHANNELS,
    sided: str = "two",
    edits: Directions | None = None,
    templates: Sequence[str] | str | None = None,
    truncation: float = 1.0,
    M: Tensor | None = None,
    styles: Tensor | None = None,
) -> Diagnosis:
    """Run ZOOM on a target; everything that can be wrong with the input is tried first (``check``).

    Args:
        target: a bare module is taken as a ``Target`` of a binary task, a text as ``Target.load``
            takes it.
        attributes: whole phrases ("a face with bangs"). neutral: their common part ("a face").
        generator, encoder: a ``StyleGenerator`` and an ``Encoder``, what offers the same, or the
            names of embedded ones, which are loaded to where the target is.
        consistency: (present, absent) prompts of the target's own attribute, which the search
            then holds fixed (Eq. 8).
        images: how many generated images are searched. seed: of these images.
        directions: "relevance" (M, the paper's), "gradient", or "auto": relevance where M is
            given, shipped or was computed before, else gradient; see ``edit_directions``.
        threshold: λ of Eq. 2; None gives each attribute its ``channels`` most relevant channels.
        edits: directions of these attributes, and perhaps of others, that are there already, such
            as ``zoom.toggle``'s. Then none is estimated, and what is said here about how
            (``directions`` to ``templates``, and ``M``) does not count.
        M: the relevance matrix, if there is one at hand.
        styles: (B, c_S) to start from, such as ``Projection.reached_styles``. Then none is sampled,
            and ``images``, ``seed`` and ``truncation`` do not count.

    Raises:
        InputError: before any long work, for anything that is wrong with target, words or numbers.
        FloatingPointError: a NaN in the search, with its step and its term.
    """
    attributes = list(attributes) if not isinstance(attributes, str) else attributes
    check_prompts(attributes, neutral)
    target, generator, encoder = _loaded(target, generator, encoder)
    check(
        target,
        attributes,
        neutral,
        generator,
        encoder,
        consistency=consistency,
        images=images,
        seed=seed,
        directions=directions,
        templates=templates,
        truncation=truncation,
        styles=styles,
    )
    if edits is None:
        edits = edit_directions(
            generator,
            encoder,
            attributes,
            neutral,
            directions,
            threshold=threshold,
            channels=channels,
            sided=sided,
            templates=templates,
            M=M,
        )
    elif edits.neutral != neutral:
        raise InputError(f"The edits start from {edits.neutral!r}, not from {neutral!r}.")
    else:
        edits = edits.of(attributes)
    if styles is None:
        styles = generator.sample_styles(images, seed, truncation)
    else:
        styles, seed = styles.to(generator.style_mean), None
    result = search(generator, target, encoder, edits, styles, settings, consistency, seed)
    return Diagnosis(Sensitivity.from_search(result, encoder), result, tuple(target.labels))


def _loaded(target: Target | nn.Module | str, generator, encoder) -> tuple:
    """The three as objects."""
    if isinstance(target, str):
        target = Target.load(target)
    if not isinstance(target, nn.Module):
        raise InputError(
            f"A target is a Target, a torch.nn.Module or the name of one, got {target!r}."
        )
    target = target if isinstance(target, Target) else Target(target)
    where = device_of(target) if isinstance(generator, str) else generator.style_mean.device
    if isinstance(generator, str):
        generator = StyleGenerator.load(generator).to(where)
    if isinstance(encoder, str):
        encoder = Encoder.load(encoder, where)
    return target, generator, encoder


@torch.no_grad()
def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image.permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
