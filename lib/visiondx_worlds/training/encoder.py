"""Training and measuring the embedded CLIP on worlds whose attributes and captions are known.

Two terms. (1) CLIP's symmetric contrastive loss (Radford et al. 2021) on (render, caption), where
some captions that are wrong on purpose stand among the texts an image may choose from. (2) The
question that the encoder will be asked later, as a loss: tau (sim(I, "... with a") - sim(I,
neutral)) is the logit of "a is visible", and for the negated prompt "... without a", the hardest
negative there is, that of the opposite. Without it small attributes stay at chance for long.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from visiondx.core.augment import augment
from visiondx.core.loop import Trainer, adamw, cosine, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.encoder import Encoder
from visiondx_worlds.models.tiny_encoder import new_encoder
from visiondx_worlds.models.tokenizer import PAD, Tokenizer
from visiondx_worlds.training.pool import Pool

BETAS = (0.9, 0.98)  # of AdamW, as CLIP's


@dataclass(frozen=True)
class Cycle:
    """A stretch of a training, to the start of the next: warm-up, and a cosine down to 0.

    Such warm restarts (Loshchilov and Hutter, 2017) let a finished training go on.
    """

    start: int = 0  # its first step
    peak: float = 1.0  # of lr
    # Batch norm with its running statistics, as in use. A batch holds images of one world, whose
    # own statistics are others than those of all worlds together: without a frozen end, an encoder
    # named 97 % of the scenes' classes with the one, and 91 % with the other.
    frozen: bool = False


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of a training; the defaults take about an hour on one CPU core."""

    steps: int = 12700  # the worlds take turns
    cycles: tuple[Cycle, ...] = (
        Cycle(),
        Cycle(4500, 0.6),
        Cycle(8500, 0.5, frozen=True),
        Cycle(11500, 0.25, frozen=True),
    )
    batch: int = 64
    lr: float = 1.5e-3
    warmup: int = 100
    weight_decay: float = 0.05
    attribute_weight: float = 2.0
    head_weight: float = 5.0
    wrong: int = 16  # captions in a batch that say something false
    pool: int = 32000  # renders of each world that the batches are drawn from
    phrasings: int = 64  # training phrasings of each attribute prompt and of the neutral one
    augmentation: float = 1.0
    average: float = 0.998  # decay of the weights' moving average, which is what is kept


def train_tokenizer(worlds: Sequence, seed: int = 0, count: int = 4000) -> Tokenizer:
    """Learn the tokenizer from `count` captions and every attribute prompt of each world."""
    texts: set[str] = set()
    for world in worlds:
        texts.update(world.caption(world.sample(count, seed), seed))
        for name in world.binary:
            for present in (True, False):
                texts.update(world.prompt(name, present, seed=s) for s in range(64))
        texts.update(world.neutral(s) for s in range(64))
    return Tokenizer.train(texts)


def cycle_of(config: EncoderConfig, step: int) -> Cycle:
    """The cycle that a step belongs to."""
    return [cycle for cycle in config.cycles if cycle.start <= step][-1]


def learning_rate(config: EncoderConfig, step: int) -> float:
    """Factor of ``config.lr``: a cosine in each cycle; one cut short by ``steps`` is shorter."""
    now = cycle_of(config, step)
    ends = [c.start for c in config.cycles if c.start > now.start] + [config.steps]
    end = min(ends[0], config.steps)
    return now.peak * cosine(step - now.start, end - now.start, warmup=config.warmup)


class PromptBank:
    """Token ids of the training phrasings, so that no step tokenises them again.

    `ids` is (A, 2, phrasings, context): attribute, present / absent. `share` (A,) is the share of
    images that show the attribute, by which the two answers are weighted.
    """

    def __init__(self, pool: Pool, phrasings: int, tokenize: Tokenizer) -> None:
        world = pool.world
        texts = [
            world.prompt(name, present, seed=seed)
            for name in world.binary
            for present in (True, False)
            for seed in range(phrasings)
        ]
        self.ids = tokenize(texts).view(len(world.binary), 2, phrasings, -1)
        neutral = [world.neutral(seed) for seed in range(phrasings)]
        self.neutral = tokenize(neutral + [world.neutral()] * phrasings)
        self.share = pool.labels.float().mean(0).clamp(0.05, 0.95)

    def pick(self, source: torch.Generator) -> Tensor:
        """(2 A + 1, context): one phrasing each of present and absent, and a neutral prompt."""
        attributes, sides, phrasings, context = self.ids.shape
        chosen = torch.randint(phrasings, (attributes, sides, 1, 1), generator=source)
        ids = self.ids.gather(2, chosen.expand(-1, -1, 1, context))
        neutral = torch.randint(len(self.neutral), (1,), generator=source)
        return torch.cat([ids.transpose(0, 1).reshape(-1, context), self.neutral[neutral]])


def embed_tokens(clip: nn.Module, ids: Tensor) -> Tensor:
    """(N, context) ids -> (N, D) of unit norm, equal to `clip.encode_text`, but faster.

    Columns that are padding in every row are left out; under the causal mask no token sees them.
    """
    used = int((ids != PAD).sum(1).max())
    cut = {
        "positional_embedding": clip.positional_embedding[:used],
        "attn_mask": clip.attn_mask[:used, :used],
    }
    # On the CPU the fused attention's backward is ten times slower than the plain one.
    with sdpa_kernel(SDPBackend.MATH):
        return torch.func.functional_call(clip, cut, (None, ids[:, :used]))[1]


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of scale * images @ texts.T; unit norm.

    images (B, D), texts (B + K, D): the last K belong to no image.
    """
    logits = scale * images @ texts.T
    target = torch.arange(len(images), device=images.device)
    back = logits[:, : len(images)].T
    return (F.cross_entropy(logits, target) + F.cross_entropy(back, target)) / 2


def attribute_loss(
    images: Tensor, prompts: Tensor, labels: Tensor, share: Tensor, tau: Tensor
) -> Tensor:
    """Binary cross-entropy of tau (sim(I, prompt) - sim(I, neutral)), both answers weighing half.

    Args:
        images: (B, D) of unit norm.
        prompts: (2 A + 1, D) of unit norm: A present, A absent, one neutral (`PromptBank.pick`).
        labels: (B, A) bool.
        share: (A,) share of True.
        tau: scale of the similarity difference.
    """
    present, absent = prompts[:-1].chunk(2)
    neutral = prompts[-1]
    truth = labels.float()
    weight = torch.where(labels, 0.5 / share, 0.5 / (1 - share))
    yes = F.binary_cross_entropy_with_logits(tau * images @ (present - neutral).T, truth, weight)
    no = F.binary_cross_entropy_with_logits(tau * images @ (absent - neutral).T, 1 - truth, weight)
    return (yes + no) / 2


def freeze_norms(tower: nn.Module, frozen: bool) -> None:
    """Whether the batch norms use their running statistics, and leave them, in train mode too."""
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(not frozen)


class Heads(nn.ModuleList):
    """One linear reading of the tower's hidden layer for each world, thrown away after training.

    Image and text sides start as a product of two small numbers, a saddle that small attributes
    (a moustache, a smile) leave only after thousands of steps. The heads give the image side a
    gradient of its own, and the texts then find what they describe already there.
    """

    def __init__(self, tower: nn.Module, worlds: Sequence) -> None:
        super().__init__(nn.Linear(tower.hidden_width, len(world.binary)) for world in worlds)
        tower.hidden.register_forward_hook(self._keep)
        self.seen: Tensor | None = None

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.seen = output

    def loss(self, index: int, labels: Tensor) -> Tensor:
        """Binary cross-entropy of one world's labels (B, A) for the images last encoded."""
        seen, self.seen = self.seen.float(), None
        return F.binary_cross_entropy_with_logits(self[index](seen), labels.float())


def train_encoder(
    worlds: Sequence,
    config: EncoderConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    device: str | torch.device = "cpu",
    time_limit: float | None = None,
) -> tuple[Encoder, bool, list[dict[str, float]]]:
    """Train, or go on training, in `directory`; steps take the worlds in turn.

    Args:
        worlds: modules or objects with the interface of `visiondx_worlds.worlds.faces`.
        tokenizer: default data/prompts/tokenizer.json.
        time_limit: seconds, after which the checkpoint is written and the next call goes on.

    Returns:
        the averaged encoder so far, whether all steps are done, and the log.

    Raises:
        InputError: the directory holds a training with other settings.
    """
    keep_memory()
    tokenizer = tokenizer or Tokenizer.load()
    device = torch.device(device)
    clip = new_encoder(tokenizer, seed).clip
    clip.requires_grad_(True).train().to(device)
    average = copy.deepcopy(clip).requires_grad_(False)
    tau = nn.ParameterDict({"log": torch.tensor(math.log(20.0))}).to(device)
    pools = [Pool(world, config.pool, seed) for world in worlds]
    banks = [PromptBank(pool, config.phrasings, tokenizer) for pool in pools]
    heads = Heads(clip.visual.trunk, worlds).to(device)
    trained = (clip, tau, heads)
    parameters = [parameter for module in trained for parameter in module.parameters()]
    adam = adamw(parameters, config.lr, config.weight_decay, BETAS)
    modules = {"clip": clip, "average": average, "tau": tau, "heads": heads}
    settings = {**asdict(config), "tokenizer": tokenizer.fingerprint}
    trainer = Trainer("encoder", modules, {"adam": adam}, directory, settings, seed=seed)
    reader = Encoder(copy.deepcopy(average), tokenizer, tokenizer.fingerprint).to(device)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * learning_rate(config, i))
        freeze_norms(clip.visual, cycle_of(config, i).frozen)
        index, now = i % len(worlds), step_seed(seed, i)
        world, bank, pool = worlds[index], banks[index], pools[index]
        source = torch.Generator().manual_seed(now)
        rows = pool.pick(config.batch, source)
        captions = world.caption(pool.attributes[rows], now)
        captions += world.wrong_caption(pool.attributes[rows[: config.wrong]], now)
        ids = torch.cat([tokenizer(captions), bank.pick(source)])
        labels, share = pool.labels[rows].to(device), bank.share.to(device)
        pictures = augment(pool.render(rows).to(device), source, config.augmentation)
        with fast_autocast(device):
            images = clip.encode_image(reader.prepare(pictures))
            texts = embed_tokens(clip, ids.to(device))
        images, texts = F.normalize(images.float(), dim=1), F.normalize(texts.float(), dim=1)
        scale = clip.logit_scale.exp().clamp(max=100)
        asked = attribute_loss(
            images, texts[len(captions) :], labels, share, tau["log"].exp().clamp(max=100)
        )
        terms = {
            "contrastive": contrastive_loss(images, texts[: len(captions)], scale),
            "attributes": config.attribute_weight * asked,
            "heads": config.head_weight * heads.loss(index, labels),
        }
        trainer.descend(adam, terms)
        update_average(average, clip, config.average, i)
        return {name: term.item() for name, term in terms.items()}

    finished = trainer.run(step, config.steps, time_limit=time_limit)
    reader.clip.load_state_dict(average.state_dict())
    return reader, finished, trainer.history
