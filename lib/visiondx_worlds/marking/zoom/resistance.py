"""How well targets withstand edits: the search itself, and what it found on another target.

Flip resistance (FR, Table 2 of ZOOM) is white-box: the search runs on the very target that is
measured. A target can look resistant only because its gradient leads nowhere; so it also meets
edits that need none: counterfactuals that were found on another target, and those of
``fixed_edits``.

Flips are raw or kept, see ``kept``: a search may truly change what the target is about, and
following that is no failure. Kept flips leave those out, and images unlike renders.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import digest, read_kept, result_key
from visiondx.core.stats import Estimate, bootstrap
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi import MultiResult, SearchSettings, multi_search
from visiondx.zoom.settings import METHOD as SEARCHING
from visiondx_worlds.marking.zoom.kept import NOT_JUDGED, Realism, same_label
from visiondx_worlds.marking.zoom.target_state import target_state

BATCH = 128  # images at once; a memory limit
TOGETHER = 64  # images of several seeds that are searched in one batch


@dataclass(frozen=True)
class Resistance:
    """Which of K edits of each of B images changed a target's prediction. On the CPU."""

    columns: tuple[str, ...]  # names of the K edits
    raw: Tensor  # (B, K) bool
    kept: Tensor | None  # (B, K) bool, or None: nobody has judged
    seeds: Tensor  # (B,) which seed an image is from

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of flips that are known."""
        return ("raw",) if self.kept is None else ("raw", "kept")

    def of(self, columns: Sequence[str]) -> "Resistance":
        """The same for some of the edits, in the given order."""
        picked = [self.columns.index(name) for name in columns]
        flips = {kind: getattr(self, kind)[:, picked] for kind in self.kinds}
        return replace(self, columns=tuple(columns), **flips)

    def rate(self, columns: Sequence[str] | None = None, kind: str = "raw") -> Estimate:
        """Share of images whose prediction none of these edits (None: of all) changed.

        The interval resamples images.

        Raises:
            InputError: "kept", where nobody has judged.
        """
        if kind not in self.kinds:
            raise InputError(NOT_JUDGED)
        picked = [self.columns.index(name) for name in columns or self.columns]
        stood = ~getattr(self, kind)[:, picked].any(1)
        return bootstrap(stood.double().numpy())

    def to_frame(self) -> pd.DataFrame:
        """One row an edit: the shares that withstood it, of each kind, with their intervals."""
        rows = []
        for name in self.columns:
            row: dict = {"edit": name}
            for kind in self.kinds:
                found = self.rate([name], kind)
                row |= {kind: found.value, f"{kind}_low": found.low, f"{kind}_high": found.high}
            rows.append(row)
        return pd.DataFrame(rows).assign(n=len(self.raw))


@dataclass(frozen=True)
class Jury:
    """Who says which flips are kept: two judges, and what real images look like."""

    judges: object
    realism: Realism

    def kept(
        self, label: str, originals: Tensor, edited: Tensor, of: Tensor | None = None
    ) -> Tensor:
        """Which of M flips are kept: (M,) bool.

        Args:
            originals: (B, 3, H, W), before. edited: (M, 3, H, W), after.
            of: (M,) the original of each; None: they stand in the same order.

        Raises:
            InputError: no judge reads the label.
        """
        column = self.judges.column(label)
        if not len(edited):
            return torch.zeros(0, dtype=torch.bool)
        device = self.realism.mean.device
        of = torch.arange(len(edited)) if of is None else of.cpu()
        before = [t[:, column].cpu()[of] for t in self.judges.read(originals.to(device))]
        edited = edited.to(device)
        after = [t[:, column].cpu() for t in self.judges.read(edited)]
        return same_label(*before, *after) & self.realism.real(edited).cpu()


def search_seeds(
    generator,
    target,
    encoder,
    directions: Directions,
    seeds: Sequence[int],
    images: int,
    settings: SearchSettings,
    consistency: Sequence[str] | None = None,
    folder: str | Path | None = None,
    truncation: float = 1.0,
) -> tuple[MultiResult, Tensor]:
    """The multi-attribute search from fresh images of every seed, as one result.

    Args:
        images: of each seed. folder: finished seeds are kept there, so that a long run resumes.
            Small ones are searched together, which changes a seed's results by rounding only.
        truncation: of the styles, see ``StyleGenerator.sample_styles``.

    Returns:
        The result of all B images, and the seed of each (B,).

    Raises:
        InputError, FloatingPointError: see ``multi_search``.
    """
    state = target_state(target, generator, asked=bool(getattr(target, "home", None)))
    made_of = [generator.fingerprint, state, images, asdict(settings)]
    made_of += [truncation, digest(delta_s=directions.delta_s), consistency]
    made_of += [getattr(encoder, "fingerprint", None)] * bool(consistency)

    def kept(seed: int) -> Path | None:
        return Path(folder) / f"search-{result_key(SEARCHING, *made_of, seed)}" if folder else None

    parts: dict[int, list[Tensor]] = {}
    for seed in seeds:
        found = read_kept(kept(seed) / "multi.safetensors", _read) if folder else None
        if found is not None:
            parts[seed] = found
    missing = [seed for seed in seeds if seed not in parts]
    size = max(1, TOGETHER // images)
    for some in tqdm([missing[i : i + size] for i in range(0, len(missing), size)], desc="seeds"):
        styles = torch.cat([generator.sample_styles(images, seed, truncation) for seed in some])
        found = multi_search(generator, target, encoder, directions, styles, settings, consistency)
        for index, seed in enumerate(some):
            own = found.of(slice(index * images, (index + 1) * images), seed)
            if folder:
                own.save(kept(seed))  # the tensors last, whole or not at all
            parts[seed] = [own.styles, own.p_original, own.trajectory_w, own.trajectory_p]
    columns = zip(*(parts[seed] for seed in seeds), strict=True)
    styles, p_original, w, p = (torch.cat(column) for column in columns)
    result = MultiResult.from_trajectories(
        directions=directions,
        styles=styles,
        p_original=p_original,
        trajectory_w=w,
        trajectory_p=p,
        settings=asdict(settings),
        consistency=tuple(consistency) if consistency else None,
        seed=None,
        generator=generator,
    )
    return result, torch.tensor(list(seeds)).repeat_interleave(images)


def _read(path: Path) -> list[Tensor]:
    tensors = load_file(path)
    return [tensors[name] for name in ("styles", "p_original", "w", "p")]


def white_box(
    result: MultiResult,
    seeds: Tensor,
    label: str,
    jury: Jury,
    steps: Sequence[int] = (25, 100),
) -> Resistance:
    """Flips after so many steps of one search: the columns are "25" and "100".

    Whether a flip is kept is judged at the first step that flips: of the edits that do, it is the
    mildest, for which the label is least often another.

    Raises:
        InputError: fewer steps were made, or no judge reads the label.
    """
    found = result.upto(max(steps)).at_first_flip()
    keeps = found.flipped.clone()
    for rows in found.flipped.nonzero()[:, 0].split(BATCH):
        some = rows.tolist()
        keeps[rows] = jury.kept(label, found.originals(some), found.images(some))
    raw = torch.stack([result.upto(count).flipped for count in steps], 1)
    kept = raw & keeps[:, None]  # the first flip within fewer steps is the same one
    return Resistance(tuple(map(str, steps)), raw, kept, seeds)


@torch.no_grad()
def transfer(result: MultiResult, seeds: Tensor, target, label: str, jury: Jury) -> Resistance:
    """The images that flipped one target are shown to another: one column, "transfer".

    Only images that flipped the first count.

    Raises:
        InputError: nothing flipped it.
    """
    rows = result.flipped.nonzero()[:, 0]
    if not len(rows):
        raise InputError("The search flipped no image, so nothing can be shown to another target.")
    raw, kept = torch.zeros(2, len(rows), 1).bool()
    for part in torch.arange(len(rows)).split(BATCH):
        some = rows[part].tolist()
        originals, edited = result.originals(some), result.images(some)
        flipped = answers(target, originals) != answers(target, edited)
        raw[part, 0], kept[part, 0] = flipped, flipped
        kept[part[flipped], 0] = jury.kept(label, originals[flipped], edited[flipped])
    return Resistance(("transfer",), raw, kept, seeds[rows])


def change(before: Tensor, after: Tensor) -> Estimate:
    """Mean change of paired answers, right or wrong; the interval resamples images."""
    return bootstrap((after.double() - before.double()).numpy())


def answers(target, images: Tensor) -> Tensor:
    """(B,) bool, on the CPU: the target says "present"."""
    device = target.mean.device
    return torch.cat([(target(part.to(device)) >= 0.5).cpu() for part in images.split(BATCH)])
