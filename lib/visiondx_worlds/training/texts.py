"""The second half of the encoder's training: its texts learn to tell the worlds apart.

In `train_encoder` the worlds take turns, so no caption ever had to be chosen among captions of
another world, and "a face" ended up nearest to pictures of cars. Here every batch holds all worlds,
and one term more asks which neutral prompt ("a face", "an animal", ...) a picture belongs to. And
the texts have filler words (`worlds.fillers`), so that negation is read, not remembered.
A last term holds a word's direction (Eq. 1 of ZOOM) to what its attribute changes in pictures.
The image tower is locked (LiT, Zhai et al., CVPR 2022): it knows the worlds already (a linear
probe: 99.9 %), and what was measured on its embeddings stays true. So the pictures are embedded
once, and only the text tower is run.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from visiondx.core.augment import augment
from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, adamw, cosine, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.seeds import step_seed
from visiondx.models.encoder import Encoder
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.training.encoder import (
    BETAS,
    PromptBank,
    attribute_loss,
    contrastive_loss,
    embed_tokens,
)
from visiondx_worlds.training.pool import Pool
from visiondx_worlds.worlds.fillers import with_fillers


@dataclass(frozen=True)
class TextsConfig:
    """Settings of a training; the defaults take a quarter of an hour on one CPU core."""

    steps: int = 1400
    batch: int = 32  # images of each world
    wrong: int = 8  # captions of each world that say something false
    lr: float = 6e-4
    warmup: int = 100
    weight_decay: float = 0.05
    attribute_weight: float = 2.0
    world_weight: float = 0.5
    direction_weight: float = 1.0
    tau: float = 50.0  # where the scale of the attribute loss starts
    pool: int = 8000  # renders of each world
    phrasings: int = 192  # training prompts of each attribute, present and absent
    augmentation: float = 1.0
    average: float = 0.998


@torch.no_grad()
def embed_pool(encoder: Encoder, pool: Pool, strength: float, seed: int) -> Tensor:
    """(len(pool), D): each render augmented once, and embedded."""
    source = torch.Generator().manual_seed(seed)
    parts = torch.arange(len(pool)).split(256)
    return torch.cat(
        [
            encoder.embed_images(augment(pool.render(rows), source, strength))
            for rows in tqdm(parts, desc="embeddings", mininterval=1.0)
        ]
    )


def attribute_effects(images: Tensor, labels: Tensor) -> Tensor:
    """What each attribute changes in an embedding, all others held: unit vectors (A, D).

    By least squares, from embeddings (N, D) and labels (N, A) bool. Of labels that sum to one (the
    classes of scenes), each against their mean; zero for a label that never changes.
    """
    added = labels.float().to(images)
    added, images = added - added.mean(0), images - images.mean(0)
    return F.normalize(torch.linalg.lstsq(added, images).solution, dim=1)


def direction_loss(prompts: Tensor, effects: Tensor) -> Tensor:
    """1 - the cosine of what the words change and what the attribute changes, the mean over both
    present against neutral (Eq. 1 of ZOOM) and present against absent.

    Args:
        prompts: (2 A + 1, D) of unit norm, as in `attribute_loss`. effects: (A, D).
    """
    present, absent = prompts[:-1].chunk(2)
    toward = torch.stack((present - prompts[-1], present - absent))
    return 1 - F.cosine_similarity(toward, effects, dim=-1).mean()


def train_texts(
    encoder: Encoder,
    worlds: Sequence,
    config: TextsConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    time_limit: float | None = None,
) -> tuple[Encoder, bool]:
    """Go on with the text tower of a copy of ``encoder``, in ``directory``.

    Args:
        encoder: with our own tokenizer; stays as it is.
        worlds: as in `train_encoder`. time_limit: seconds; the next call goes on.

    Returns:
        the averaged encoder so far, and whether all steps are done.

    Raises:
        InputError: an encoder of open_clip's, or a directory with a training of other settings.
    """
    tokenizer = encoder.tokenize
    if not isinstance(tokenizer, Tokenizer):
        raise InputError("train_texts goes on with an encoder of this repository: Encoder.load().")
    keep_memory()
    worlds = [with_fillers(world) for world in worlds]
    pools = [Pool(world, config.pool, seed) for world in worlds]
    banks = [PromptBank(pool, config.phrasings, tokenizer) for pool in pools]
    embedded = [
        embed_pool(encoder, pool, config.augmentation, step_seed(seed, index))
        for index, pool in enumerate(pools)
    ]
    effects = [
        attribute_effects(table, pool.labels) for table, pool in zip(embedded, pools, strict=True)
    ]
    reader = copy.deepcopy(encoder)
    clip, average = copy.deepcopy(encoder.clip), reader.clip
    tau = nn.ParameterDict({"log": torch.tensor(math.log(config.tau))})
    texts = [p for name, p in clip.named_parameters() if not name.startswith("visual.")]
    trained = [p.requires_grad_(True) for p in (*texts, tau["log"])]
    adam = adamw(trained, config.lr, config.weight_decay, BETAS)
    modules = {"clip": clip, "average": average, "tau": tau}
    settings = {**asdict(config), "encoder": encoder.fingerprint}
    trainer = Trainer("texts", modules, {"adam": adam}, directory, settings, seed=seed)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=config.warmup))
        now = step_seed(seed, i)
        source = torch.Generator().manual_seed(now)
        images, labels, true, false, prompts = [], [], [], [], []
        for world, pool, bank, table in zip(worlds, pools, banks, embedded, strict=True):
            rows = pool.pick(config.batch, source)
            shown = pool.attributes[rows]
            images.append(table[rows])
            labels.append(pool.labels[rows])
            true += world.caption(shown, now)
            false += world.wrong_caption(shown[: config.wrong], now)
            prompts.append(bank.pick(source))
        # captions are long and prompts short: apart, neither carries the other's padding
        captions = F.normalize(embed_tokens(clip, tokenizer(true + false)), dim=1)
        asked = F.normalize(embed_tokens(clip, torch.cat(prompts)), dim=1)
        asked = asked.split([len(each) for each in prompts])
        answers = [
            attribute_loss(*each, bank.share, tau["log"].exp().clamp(max=100))
            for *each, bank in zip(images, asked, labels, banks, strict=True)
        ]
        toward = torch.stack([direction_loss(*each) for each in zip(asked, effects, strict=True)])
        scale = clip.logit_scale.exp().clamp(max=100)
        neutral = torch.stack([each[-1] for each in asked])
        home = torch.arange(len(worlds)).repeat_interleave(config.batch)
        every = torch.cat(images)
        terms = {
            "contrastive": contrastive_loss(every, captions, scale),
            "attributes": config.attribute_weight * torch.stack(answers).mean(),
            "worlds": config.world_weight * F.cross_entropy(scale * every @ neutral.T, home),
            "directions": config.direction_weight * toward.mean(),
        }
        trainer.descend(adam, terms)
        update_average(average, clip, config.average, i)
        return {name: term.item() for name, term in terms.items()}

    finished = trainer.run(step, config.steps, time_limit=time_limit)
    average.visual.load_state_dict(clip.visual.state_dict())  # averaging makes 0.0 of -0.0
    return reader, finished
