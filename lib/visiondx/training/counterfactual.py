"""Counterfactual training (ZOOM, section 3.5): a target learns from the images that flip it.

Eq. 12 minimises the cross-entropy between f(x̂) and f(x) over the counterfactuals x̂ of generated
images x. It is an iterated min-max game. Each round searches fresh images against the target as it
is now, all attributes at once; adds what it found to a bank that keeps growing; and trains for some
steps on a mix of the bank and the regular training set.

Choices, and what they are about:

- Labels. Generated images have none: "the model's original predictions" (section 3.5) are those of
  the target, as it is in that round, on the unedited x. So Eq. 12 asks for constancy and leaves it
  to the training set, with its true labels, to say what is right.
- x itself goes into the bank beside x̂, with the same label. Eq. 12 compares the two; without x the
  target could agree with x̂ by forgetting what it said of x.
- Batch norm keeps the statistics of the regular training: the module stays in eval mode. In train
  mode a mixed batch would be normalised by the statistics of the mixture, which no image meets
  afterwards. Its scales and shifts are trained.
- No augmentation: on few steps it costs more resistance than it gives.
- Many short searches: what is learned carries over to fresh images the better, the more different
  images were searched, and hardly by how exactly.
- The curve over the rounds costs nothing: the search of round r is a white-box search from fresh
  images against the target after r rounds, before it learns from what is found.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from visiondx import plots
from visiondx.errors import InputError
from visiondx.files import digest
from visiondx.models.target import Target
from visiondx.stats import bootstrap
from visiondx.training.counterfactual_bank import Bank, Renders, Round, to_bytes
from visiondx.training.loop import Trainer, cosine, set_learning_rate, step_seed
from visiondx.training.memory import keep_memory
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi import SearchSettings, multi_search

__all__ = [
    "CounterfactualConfig",
    "CounterfactualTraining",
    "Renders",
    "plot_rounds",
    "train_counterfactually",
]
# Two long signed steps, to a corner and back where that was wrong: a search as short as that finds
# about as many flips as one of 25, so that many more images can be searched.
SEARCH = SearchSettings(
    steps=2, eta=0.75, epsilon=1.0, update="sign", beta=0.0, gamma=0.0, starts=(0.0,)
)
FRESH = 10_000  # seeds of the rounds' styles start here, far from those of tuning and reporting


@dataclass(frozen=True)
class CounterfactualConfig:
    """Settings of one counterfactual training.

    Args:
        rounds: of searching and training. images: fresh styles that each round searches from.
        search: settings of the multi-attribute search.
        steps: training steps a round. batch: images a step.
        share: of a batch, and of the loss, that the bank gives; the rest is the training set.
        lr: of Adam; it falls as a half cosine over all rounds, to a tenth.
    """

    rounds: int = 10
    images: int = 768
    search: SearchSettings = SEARCH
    steps: int = 200
    batch: int = 128
    share: float = 0.6
    lr: float = 2e-3

    def __post_init__(self):
        for name in ("rounds", "images", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not 0 < self.banked < self.batch:
            raise InputError(
                f"share = {self.share} of a batch of {self.batch} leaves the bank or the training "
                "set no image: choose a share between 0 and 1, or a larger batch."
            )

    @property
    def banked(self) -> int:
        """Images of a batch that the bank gives."""
        return round(self.batch * self.share)


@dataclass(frozen=True)
class CounterfactualTraining:
    """The robust target, and all rounds: 0 met the regular target, the last the finished one."""

    target: Target
    rounds: tuple[Round, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a round: the flip resistance and accuracy that it met, with intervals."""
        rows = []
        for part in self.rounds:
            row: dict = {"round": part.number}
            for name, hits in (("flip_resistance", part.withstood), ("accuracy", part.right)):
                found = bootstrap(hits.double().numpy())
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            rows.append(row | {"images": len(part.p), "renders": len(part.right)})
        return pd.DataFrame(rows)

    def plot(self, title: str = "") -> Figure:
        """Flip resistance and accuracy over the rounds."""
        return plot_rounds({"": self.to_frame()}, title)

    def plot_bank(self, pairs: int = 5) -> Figure:
        """A row a round: original, counterfactual, ..., with f(x) and f(x̂) as they then were."""
        pairs = min(pairs, len(self.rounds[0].p))
        images, titles = [], []
        for part in self.rounds:
            for i in range(pairs):
                images += [part.originals[i], part.images[i]]
                titles += [f"{part.p_original[i]:.2f}", f"→ {part.p[i]:.2f}"]
        rows = [f"after {part.number} rounds" for part in self.rounds]
        return plots.image_grid(torch.stack(images) / 255, titles, 2 * pairs, rows)


def plot_rounds(frames: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Flip resistance and accuracy over the rounds of several trainings: name -> ``to_frame()``."""
    lines = {}
    for training, frame in frames.items():
        for name in ("flip_resistance", "accuracy"):
            columns = {name: "share", f"{name}_low": "low", f"{name}_high": "high"}
            words = " ".join([training, *name.split("_")]).strip()
            lines[words] = frame[["round", *columns]].rename(columns=columns)
    figure = plots.curves(lines, "round", "share", title)
    figure.axes[0].locator_params(axis="x", integer=True)
    return figure


def train_counterfactually(
    target: Target,
    generator,
    directions: Directions,
    renders: Renders,
    held: Renders,
    config: CounterfactualConfig,
    directory: str | Path,
    *,
    encoder=None,
    consistency: tuple[str, str] | None = None,
    seed: int = 0,
    time_limit: float | None = None,
) -> CounterfactualTraining | None:
    """Robustify a copy of a binary target, or go on where ``directory`` ends.

    Args:
        target: stays as it is. generator, directions, encoder, consistency: see ``multi_search``.
        renders: the regular training set. held: other renders, for the curve.
        directory: of the checkpoint, the log and a file for each round.
        seed: of the styles (10,000 + 1,000 seed + round) and of the batches.

    Returns:
        None when ``time_limit`` (seconds) ran out: call again to go on.

    Raises:
        InputError: a target that is not binary, has no gradient or nothing to train; no attribute;
            a directory with a training of other settings.
        FloatingPointError: a NaN in the search or the training.
    """
    _check(target, generator, directions)
    keep_memory()
    robust = copy.deepcopy(target).eval().requires_grad_(True)
    about = {
        **asdict(config),
        "consistency": consistency,
        "generator": generator.fingerprint,
        "directions": digest(delta_s=directions.delta_s),
        "target": digest(**target.module.state_dict()),
        "renders": digest(**vars(renders)),
        "held": digest(**vars(held)),
    }
    adam = torch.optim.Adam(robust.module.parameters(), lr=config.lr)
    name = f"{target.config.get('label', 'target')}-robust"
    trainer = Trainer(name, {"net": robust.module}, {"adam": adam}, directory, about, seed=seed)
    bank = Bank(directory, [about, seed])
    total, device = config.rounds * config.steps, target.mean.device

    def search(number: int) -> Round:
        styles = generator.sample_styles(config.images, FRESH + 1000 * seed + number)
        found = multi_search(
            generator, robust, encoder, directions, styles, config.search, consistency
        )
        parts = [part.tolist() for part in torch.arange(len(styles)).split(128)]
        originals, images = (
            torch.cat([to_bytes(draw(part)) for part in parts])
            for draw in (found.originals, found.images)
        )
        return Round(number, originals, images, found.p_original, found.p, held.right(robust))

    def step(i: int) -> dict[str, float]:
        bank.upto(i // config.steps, search)
        set_learning_rate(adam, config.lr * cosine(i, total, warmup=20, final=0.1))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        known = torch.randint(len(renders), (config.batch - config.banked,), generator=source)
        images, labels = bank.draw(config.banked, source)
        images = torch.cat([renders.images[known], images]).to(device) / 255
        labels = torch.cat([renders.labels[known], labels]).to(device).float()
        with torch.autocast(device.type, torch.bfloat16):
            logit = robust.logit(images.contiguous(memory_format=torch.channels_last))
        each = F.binary_cross_entropy_with_logits(logit.float(), labels, reduction="none")
        shown, found = each.tensor_split([len(known)])
        terms = {
            "renders": (1 - config.share) * shown.mean(),
            "counterfactuals": config.share * found.mean(),  # Eq. 12
        }
        trainer.descend(adam, terms)
        return {key: term.item() for key, term in terms.items()}

    if not trainer.run(step, total, time_limit=time_limit):
        return None
    bank.upto(config.rounds, search)  # against the finished target: for the curve alone
    return CounterfactualTraining(robust.requires_grad_(False), tuple(bank.rounds))


def _check(target: Target, generator, directions: Directions) -> None:
    if target.task != "binary":
        raise InputError(
            f"Counterfactual training robustifies a binary target, this one is {target.task} with "
            f"{len(target.labels)} labels: wrap the logit of one label in a binary Target."
        )
    if not len(directions):
        raise InputError("Counterfactual training needs one or more attributes to edit, got none.")
    images = generator.synthesize(generator.sample_styles(4, FRESH)).detach()
    target.check(images)
    trial = copy.deepcopy(target).requires_grad_(True)
    parameters, logit = list(trial.module.parameters()), trial.logit(images)
    reached = []
    if parameters and logit.requires_grad:
        reached = torch.autograd.grad(logit.sum(), parameters, allow_unused=True)
    if all(gradient is None for gradient in reached):
        raise InputError(
            "The target has no parameters that a gradient reaches, so nothing can be trained: give "
            "its module nn.Parameters that the forward pass uses, without detaching them."
        )
