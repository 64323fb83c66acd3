"""`LossModel`: an ensemble on CLIP embeddings of images that is asked in sentences."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.seeds import step_seed
from visiondx.core.stats import Estimate
from visiondx.llm2loss import heads
from visiondx.llm2loss.answers import Answers, Comparisons, aggregated
from visiondx.llm2loss.audit import Audit
from visiondx.llm2loss.checks import (
    check_choice,
    check_distinct,
    checked,
    needed,
)
from visiondx.llm2loss.criteria import criteria
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.fit import FitSettings, fit_heads
from visiondx.llm2loss.modality import placed, project
from visiondx.llm2loss.resampling import distinct, doubt, skill, titled
from visiondx.llm2loss.tables import check_losses
from visiondx.models.encoder import Encoder
from visiondx.models.vocabulary import unknown_to
from visiondx.show import plots

KINDS = ("ranker", "regressor", "classifier")
AGGREGATIONS = ("mean", "median")
CHUNK = 2**16  # rows scored at a time
MEMORY = 4096  # images that texts are projected onto, at most
OPTIONAL = ("image_mean", "text_mean", "memory")


@dataclass(frozen=True)
class LossModel:
    """h of LLM2Loss, E members; made by ``fit``.

    ``kind`` says what h means: "regressor" the loss itself (Eq. 1), "ranker" a score whose order is
    that of the losses (Eqs. 2-4), 0 on average over the images, "classifier" the log-odds that
    something was seen (3.1.3).

    ``skill`` is Spearman's correlation of h and the loss (of a classifier: of what was seen or not)
    on examples that a member was held out from. Where its interval does not lie above 0, the model
    knows no more than chance, and its answers say so.
    """

    kind: str
    aggregation: str
    settings: FitSettings
    seed: int
    n: int  # different images that it was made from
    skill: Estimate  # Spearman on held-out examples, see ``resampling.skill``
    weights: Tensor  # (E, P), see ``heads``
    validation: Tensor  # (epochs, E), NaN after a member has stopped
    best: Tensor  # (E,) epochs of the weights
    image_mean: Tensor | None  # (D,), None without centring
    text_mean: Tensor | None
    memory: Tensor | None  # (K, D) images that texts are projected onto, None without
    location: float  # h = location + scale x the heads' output
    scale: float
    encoder_fingerprint: str | None
    encoder: Encoder | None = field(repr=False, compare=False)

    @classmethod
    def fit(
        cls,
        data: LossData,
        encoder: Encoder | None = None,
        *,
        kind: str = "ranker",
        settings: FitSettings | None = None,
        aggregation: str = "mean",
        neutral: Sequence[str] = (),
        projected: bool = False,
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> "LossModel":
        """Train an ensemble on what a black box's losses are.

        Images that are given more than once (equal embeddings) count once, with their mean loss.
        It warns of an ensemble that knows no more than chance.

        Args:
            encoder: reads sentences; the one that made the embeddings. None: only ``score``.
            kind: "ranker", "regressor" or "classifier". The classifier's negatives are as many
                random directions, uniform on the sphere, and then placed as the images are.
            aggregation: over members, "mean" or "median".
            neutral: sentences that say nothing of what varies between the images; each modality
                is centred, texts by their mean and images by that of ``data``. None of them: no
                centring, as in the paper.
            projected: texts are replaced by what images of ``data`` that fit them have in common,
                see ``modality.project``, and need no centring then.
            folder: where an interrupted training goes on.

        Raises:
            InputError: an unknown kind or aggregation, another encoder than the embeddings',
                neutral sentences without an encoder, or one that is too long, texts that are to
                be both centred and projected, fewer than 50 different images, or losses that are
                nearly constant.
        """
        if neutral and projected:
            raise InputError(
                "Texts are either centred or projected: leave out neutral, or projected."
            )
        settings = settings or FitSettings()
        check_choice("kind", kind, KINDS)
        check_choice("aggregation", aggregation, AGGREGATIONS)
        fingerprint = checked(encoder, data.encoder)
        embeddings, y = distinct(data.embeddings, data.losses)
        check_distinct(len(y), len(data))
        if kind != "classifier":  # it sees no losses
            check_losses(y.tolist())
        means = (None, None)
        if neutral:
            texts = needed(encoder).embed_texts(list(neutral)).cpu()
            means = (F.normalize(embeddings, dim=1).mean(0), texts.mean(0))
        memory = None
        if projected:
            drawn = torch.Generator().manual_seed(step_seed(seed, 1))
            memory = embeddings[torch.randperm(len(y), generator=drawn)[:MEMORY]].clone()
        x, n = placed(embeddings, means[0]), len(y)
        location, scale = 0.0, 1.0
        if kind == "regressor":
            location, scale = float(y.mean()), float(y.std())
            y = (y - location) / scale
        elif kind == "classifier":
            drawn = torch.Generator().manual_seed(step_seed(seed, 0))
            x = torch.cat((x, placed(torch.randn(x.shape, generator=drawn), means[0])))
            y = torch.cat((torch.ones(n), torch.zeros(n)))
        criterion, judge = criteria(kind, settings.pairs)
        fitted = fit_heads(x, y, criterion, settings, seed, judge=judge, folder=folder)
        weights = fitted.weights
        h = heads.scores(weights, x, settings.head, settings.hidden)
        if kind == "ranker":  # its loss leaves each member's level open: 0 on average over images
            level = h.mean(1, keepdim=True)
            weights[:, -1:] -= level
            h = h - level
        known = skill(h, y, fitted.test)
        if said := doubt(known):
            warnings.warn(said, stacklevel=2)
        return cls(
            kind, aggregation, settings, seed, n, known,
            weights, fitted.validation, fitted.best,
            *means, memory, location, scale, fingerprint, encoder,
        )  # fmt: skip

    @property
    def sign(self) -> int:
        """1 where a larger h is worse for the black box, -1 for the classifier's familiarity."""
        return -1 if self.kind == "classifier" else 1

    @torch.no_grad()
    def score(self, embeddings: Tensor, modality: str = "image") -> Tensor:
        """h of every member: (N, D) embeddings of images or texts -> (E, N).

        Raises:
            InputError: an unknown modality, or embeddings of another width.
        """
        check_choice("modality", modality, ("image", "text"))
        mean = self.image_mean if modality == "image" else self.text_mean
        head, hidden = self.settings.head, self.settings.hidden
        if embeddings.ndim != 2 or self.weights.shape[1] != sum(
            heads.sizes(head, embeddings.shape[1], hidden)
        ):
            raise InputError(
                f"This LossModel was made from other embeddings than {tuple(embeddings.shape)}: "
                "give (N, D) of the encoder that it was made with."
            )
        embeddings = embeddings.float()
        if modality == "text" and self.memory is not None:
            embeddings = project(embeddings, self.memory)
        parts = embeddings.split(CHUNK)
        found = [heads.scores(self.weights, placed(part, mean), head, hidden) for part in parts]
        return self.location + self.scale * torch.cat(found, 1)

    def predict(self, embeddings: Tensor, modality: str = "image") -> Tensor:
        """h of the ensemble: (N, D) -> (N,)."""
        return aggregated(self.score(embeddings, modality), self.aggregation)

    def familiarity(self, embeddings: Tensor, modality: str = "image") -> Tensor:
        """(N,): the larger, the more like what the black box does well: h of the classifier, -h of
        the others (section 4.1.2).
        """
        return -self.sign * self.predict(embeddings, modality)

    def ask(self, prompts: Sequence[str]) -> Answers:
        """The loss, rank score or familiarity of sentences (section 3.2).

        Raises:
            InputError: no encoder, no prompt, an empty one or one longer than the context.
        """
        found = self._texts(prompts)
        unknown = unknown_to(self.encoder, prompts)
        return Answers(tuple(prompts), found, *self._about, unknown)

    def compare(self, a: str | Sequence[str], b: str | Sequence[str]) -> Comparisons:
        """On which of two sentences is the black box worse (Fig. 3)? Pair by pair.

        Raises:
            InputError: another number of sentences in a than in b, or what ``ask`` refuses.
        """
        a, b = ([part] if isinstance(part, str) else list(part) for part in (a, b))
        if len(a) != len(b):
            raise InputError(f"compare needs pairs of sentences, got {len(a)} and {len(b)}.")
        of_a, of_b = self._texts([*a, *b]).split(len(a), 1)
        words = [x + y for x, y in zip(*(unknown_to(self.encoder, side) for side in (a, b)))]
        unknown = tuple(tuple(dict.fromkeys(both)) for both in words)
        return Comparisons(tuple(a), tuple(b), self.sign * (of_a - of_b), *self._about, unknown)

    def audit(self, attributes: Sequence[str], negation: str = "Not {}") -> Audit:
        """The RMM table: |score("<attribute>") - score("Not <attribute>")| of each attribute.

        Args:
            negation: how an absence is said; ``{}`` stands for the attribute.

        Raises:
            InputError: a negation without ``{}``, or what ``ask`` refuses.
        """
        if "{}" not in negation:
            raise InputError(f"The negation {negation!r} needs {{}} where the attribute stands.")
        names = tuple(attributes)
        texts = [*names, *(negation.format(name) for name in names)]
        present, absent = self._texts(texts).split(max(1, len(names)), 1)
        about = (self.sign, self.aggregation, self.seed, self.skill)
        return Audit(names, present, absent, *about, unknown_to(self.encoder, names))

    def to_frame(self) -> pd.DataFrame:
        """The training: one row an epoch and member, with the validation loss."""
        frame = pd.DataFrame(self.validation.numpy()).rename_axis("epoch").reset_index()
        long = frame.melt("epoch", var_name="member", value_name="validation").dropna()
        return long.assign(best=long["epoch"] == self.best.numpy()[long["member"].astype(int)])

    def plot(self, title: str = "") -> Figure:
        """A line a member, the validation loss by epoch, and a dot at the weights that it kept; the
        title has the skill.
        """
        figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
        axis.plot(self.validation.numpy(), color=plots.REST, linewidth=1)
        best = self.best.long()
        lowest = self.validation.gather(0, best[None])[0]
        axis.plot(best.numpy(), lowest.numpy(), "o", color=plots.FIRST, markersize=4)
        axis.set(xlabel="epoch", ylabel="validation loss")
        axis.set_title(titled(title, self.skill), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        plt.close(figure)
        return figure

    def save(self, folder: str | Path) -> None:
        """Write loss_model.safetensors (weights, means, settings) and training.csv."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        about = {
            name: asdict(value) if name in ("settings", "skill") else value
            for name, value in vars(self).items()
            if name not in tensors and name not in ("encoder", *OPTIONAL)
        }
        with atomic_write(Path(folder) / "loss_model.safetensors") as path:
            contiguous = {name: value.contiguous() for name, value in tensors.items()}
            save_file(contiguous, path, {key: json.dumps(value) for key, value in about.items()})
        with atomic_write(Path(folder) / "training.csv") as path:
            self.to_frame().to_csv(path, index=False)

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | None = None) -> "LossModel":
        """Read what ``save`` wrote.

        Raises:
            InputError: nothing there, a model of an earlier version, or another encoder than the
                one that it was made with.
        """
        path = Path(folder) / "loss_model.safetensors"
        if not path.is_file():
            raise InputError(f"No LossModel in {folder}: write one with LossModel.save.")
        with safe_open(path, framework="pt") as file:
            about = {key: json.loads(value) for key, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if "skill" not in about:
            raise InputError(
                f"The LossModel in {folder} was made by an earlier version, which did not measure "
                "its skill: fit it again."
            )
        about["settings"] = FitSettings(**about["settings"])
        about["skill"] = Estimate(**about["skill"])
        checked(encoder, about["encoder_fingerprint"])
        return cls(**{**dict.fromkeys(OPTIONAL), **about, **tensors}, encoder=encoder)

    @property
    def _about(self) -> tuple[str, str, int, Estimate]:
        return self.kind, self.aggregation, self.seed, self.skill

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        """(E, P)."""
        with torch.no_grad():
            embeddings = needed(self.encoder).embed_texts(
                prompts if isinstance(prompts, str) else list(prompts)
            )
        return self.score(embeddings.cpu(), "text")
