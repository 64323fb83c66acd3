"""Counterfactual training (ZOOM, section 3.5): a target learns from the images that flip it.

Eq. 12 minimises the cross-entropy between f(x̂) and f(x) over the counterfactuals x̂ of generated
images x. It is an iterated min-max game. Each round searches fresh images against the target as it
is now, all attributes at once; keeps what it found; and trains for some steps on a mix of that and
of the regular training set.

`recipes` has the paper's, which is Eq. 12 alone, and ours, which plays harder. Common choices:

- Batch norm keeps the statistics of the regular training: the module stays in eval mode, in which
  it is searched and measured. Its scales and shifts are trained.
- The curve over the rounds costs nothing: the search of round r is a white-box search from fresh
  images against the target after r rounds, before it learns from what is found.

And of ours:

- Constancy. Cross-entropy alone is slow to make two views alike that are on one side already; the
  variance of the logit over the two is added to it. Not too much: at a weight of 1 all logits
  became 0.
- Augmentation, and the running average of the weights. What goes wrong is that the bank is known by
  heart: without them two and a half thousand images became constant and fresh ones hardly.
"""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from visiondx.core.augment import augment
from visiondx.core.errors import InputError
from visiondx.core.files import digest
from visiondx.core.loop import Trainer, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.target import Target
from visiondx.zoom.counterfactual_training.bank import METHODS, Bank, Renders, Round
from visiondx.zoom.counterfactual_training.recipes import RECIPES
from visiondx.zoom.counterfactual_training.result import CounterfactualTraining, plot_rounds
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi import SearchSettings, multi_search

__all__ = [
    "PAPER",
    "SEARCH",
    "CounterfactualConfig",
    "CounterfactualTraining",
    "Renders",
    "plot_rounds",
    "train_counterfactually",
]
# One signed step from the original to a corner, twice as far as the targets are tried later.
SEARCH = SearchSettings(
    steps=1, eta=2.0, epsilon=2.0, update="sign", beta=0.0, gamma=0.0, starts=(0.0,)
)
FRESH = 10_000  # seeds of the rounds' styles start here, far from those of tuning and reporting


@dataclass(frozen=True)
class CounterfactualConfig:
    """Settings of one counterfactual training.

    Args:
        recipe: "bank", ours, or "paper", Eq. 12 alone; see ``recipes``, and ``PAPER`` for the
            other numbers of the latter.
        rounds: of searching and training. images: fresh styles that each round searches from.
        search: settings of the multi-attribute search; a bank's random edits go as far.
        steps: training steps a round. drawn: searched images a step: two views of each of a bank's.
        renders: of the regular training set a step.
        share: of the cross-entropy, that they give; the rest is the training set.
        constancy: weight of the variance of the logit over an image's two views.
        lr: of Adam; ours falls as a half cosine over all rounds, to a fiftieth.
        augmentation: its strength on all images, as in the regular training.
        average: what the running average of the weights keeps of itself at a step.
    """

    recipe: str = "bank"
    rounds: int = 8
    images: int = 1000
    search: SearchSettings = SEARCH
    steps: int = 220
    drawn: int = 32
    renders: int = 32
    share: float = 0.75
    constancy: float = 0.3
    lr: float = 1.5e-3
    augmentation: float = 0.5
    average: float = 0.98

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise InputError(f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}.")
        added = [n for n in ("constancy", "augmentation", "average") if getattr(self, n)]
        if self.recipe == "paper" and added:
            raise InputError(f"The paper's recipe has no {', '.join(added)}: set each to 0.")
        for name in ("rounds", "images", "steps", "drawn", "renders"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not 0 < self.share < 1:
            raise InputError(f"share must lie between 0 and 1, got {self.share}.")
        if not self.constancy >= 0:
            raise InputError(f"constancy must be 0 or more, got {self.constancy}.")


# The paper's batch of 128, half of it counterfactuals; its search is that of Eq. 10, in the bound
# that the target is tried with later. How many rounds, images and steps, it does not say. Its Adam
# trained at 1e-3; the first step of that length makes a trained target answer at random.
PAPER = CounterfactualConfig(
    recipe="paper",
    rounds=25,
    images=64,
    search=SearchSettings(steps=10, epsilon=1.0, starts=(0.0,)),
    steps=15,
    drawn=64,
    renders=64,
    share=0.5,
    lr=1e-4,
    constancy=0.0,
    augmentation=0.0,
    average=0.0,
)


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
    learning = copy.deepcopy(target).eval().requires_grad_(True)
    robust = copy.deepcopy(target).eval().requires_grad_(False)  # its running average
    about = {
        **asdict(config),
        "methods": METHODS,
        "consistency": consistency,
        "generator": generator.fingerprint,
        "directions": digest(delta_s=directions.delta_s),
        "target": digest(**target.module.state_dict()),
        "renders": digest(**vars(renders)),
        "held": digest(**vars(held)),
    }
    adam = torch.optim.Adam(learning.module.parameters(), lr=config.lr)
    name = f"{target.config.get('label', 'target')}-robust"
    modules = {"learning": learning.module, "robust": robust.module}
    trainer = Trainer(name, modules, {"adam": adam}, directory, about, seed=seed)
    bank = Bank(directory, [about, seed])
    recipe, device = RECIPES[config.recipe], target.mean.device
    total = config.rounds * config.steps

    def search(number: int) -> Round:
        own = FRESH + 1000 * seed + number
        styles = generator.sample_styles(config.images, own)
        found = multi_search(
            generator, robust, encoder, directions, styles, config.search, consistency
        )
        views, regular = recipe.views(generator, target, found, own)
        return Round(number, views, found.p_original, found.p, regular, held.right(robust))

    def step(i: int) -> dict[str, float]:
        bank.upto(i // config.steps, search)
        set_learning_rate(adam, config.lr * recipe.rate(i, total))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        known = torch.randint(len(renders), (config.renders,), generator=source)
        views, label = recipe.draw(bank, config.drawn, source, learning)
        images = torch.cat([renders.images[known].to(device) / 255, views.flatten(0, 1)])
        if config.augmentation:
            images = augment(images, source, config.augmentation)
        with fast_autocast(device):
            logit = learning.logit(images.contiguous(memory_format=torch.channels_last)).float()
        shown, found = logit[: len(known)], logit[len(known) :].unflatten(0, views.shape[:2])
        cross_entropy = F.binary_cross_entropy_with_logits
        truth = renders.labels[known].to(device).float()
        terms = {
            "renders": (1 - config.share) * cross_entropy(shown, truth),
            "counterfactuals": config.share * cross_entropy(found, label),  # Eq. 12
        }
        if config.constancy:
            terms["constancy"] = config.constancy * found.var(1, correction=0).mean()
        trainer.descend(adam, terms)
        update_average(robust.module, learning.module, config.average, i)
        return {key: term.item() for key, term in terms.items()}

    if not trainer.run(step, total, time_limit=time_limit):
        return None
    bank.upto(config.rounds, search)  # against the finished target: for the curve alone
    return CounterfactualTraining(robust, tuple(bank.rounds))


def _check(target: Target, generator, directions: Directions) -> None:
    if target.task != "binary":
        raise InputError(
            f"Counterfactual training robustifies a binary target, this one is {target.task} with "
            f"{len(target.labels)} labels: take one class of a multiclass one by of_class(k)."
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
