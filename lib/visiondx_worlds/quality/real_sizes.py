"""What a search costs at the sizes of real models, in time and memory, without their weights.

Time and memory depend on shapes, not on weights: a config-F generator, an open_clip encoder and a
ResNet-18 with random weights cost what trained ones do; what they find means nothing. Every
measurement runs in a process of its own, so that the peak is its own:

    python -m visiondx_worlds.quality.real_sizes '{"work": "search", "resolution": 256}'
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import visiondx
from visiondx.core.errors import InputError
from visiondx.core.memory import peak_memory_of_process
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import Generator
from visiondx.models.target import Target
from visiondx.zoom.directions import from_relevance, text_directions, threshold_for
from visiondx.zoom.estimate import CHANNELS
from visiondx.zoom.gradient_directions import gradient_relevance
from visiondx.zoom.relevance import relevance_matrix
from visiondx.zoom.search import SearchSettings, search

NEUTRAL, ATTRIBUTE = "a face", "a face with eyeglasses"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's models ask
SIZE = 224  # of the classifier's input


@dataclass(frozen=True)
class Work:
    """One measurement.

    Args:
        work: "search", one step of one image, with the paper's losses; "gradient", the gradients of
            one attribute; or "relevance", a few channels of M, spread over all layers.
        resolution: of the generator, in pixels. base, top: a layer at side R has base / R channels,
            at most top; the official networks have 32768 and 512.
        encoder: an architecture of open_clip. images: of "gradient" and "relevance".
        channels: of "relevance". checkpoint: see ``StyleGenerator``. batch: images at once.
    """

    work: str
    resolution: int
    base: int = 32768
    top: int = 512
    encoder: str = "ViT-B-32"
    images: int = 1
    channels: int = 4
    checkpoint: bool | None = None
    batch: int | None = 1
    seed: int = 0


@dataclass(frozen=True)
class Cost:
    """What it took. ``answer`` holds what was found, to be compared between two ways to find it."""

    seconds: float  # of processor cores, which a busy machine hardly changes; of a clock on a GPU
    images: int  # drawn
    peak: int  # bytes, of the process or on the GPU
    editable: int  # style channels of the generator that M has a row for
    answer: list[float]

    @property
    def per_image(self) -> float:
        """Seconds."""
        return self.seconds / self.images

    @property
    def gib(self) -> float:
        return self.peak / 2**30


def config_f_channels(resolution: int, base: int = 32768, top: int = 512) -> dict[int, int]:
    """Each side up to the resolution -> how many channels its block has.

    Raises:
        InputError: a resolution that is no power of two from 8 on.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise InputError(f"resolution must be a power of two, 8 or more, got {resolution}.")
    sides = [2**level for level in range(2, resolution.bit_length())]
    return {side: min(base // side, top) for side in sides}


def config_f(
    resolution: int, base: int = 32768, top: int = 512, width: int = 512, seed: int = 0
) -> StyleGenerator:
    """A StyleGAN2 generator of the official config F, with random weights.

    Args:
        width: of z, w and the eight layers between.

    Raises:
        InputError: see ``config_f_channels``.
    """
    channels = config_f_channels(resolution, base, top)
    torch.manual_seed(seed)
    settings = {"z_dim": width, "w_dim": width, "channels": channels, "mapping_layers": 8}
    generator = StyleGenerator(Generator(**settings), settings)
    generator.measure(256)
    return generator


def random_encoder(name: str = "ViT-B-32", seed: int = 0) -> Encoder:
    """An open_clip model with random weights."""
    import open_clip

    torch.manual_seed(seed)
    return Encoder(open_clip.create_model(name), open_clip.get_tokenizer(name), name)


def random_target(seed: int = 0) -> Target:
    """A ResNet-18 with one logit and random weights."""
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    return Target(resnet18(num_classes=1).eval(), size=SIZE, mean=MEAN, std=STD)


def measure(work: Work) -> Cost:
    """Measure in a process of its own.

    Raises:
        InputError: unknown work, an impossible resolution, or the process failed; its last line
            says why.
    """
    if work.work not in WORKS:
        raise InputError(f"work must be one of {', '.join(WORKS)}, got {work.work!r}.")
    source = str(Path(visiondx.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(asdict(work))],
        capture_output=True,
        text=True,
        cwd=source,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{work} did not end well: {why}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def run(work: Work) -> Cost:
    """Measure here; the peak is that of this process so far."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    generator = config_f(work.resolution, work.base, work.top, seed=work.seed).to(where)
    encoder = random_encoder(work.encoder, work.seed).to(where)
    generator.checkpoint = work.checkpoint
    drawn = []
    generator.network.synthesis.register_forward_hook(
        lambda module, given, image: drawn.append(len(image))
    )
    call = WORKS[work.work](work, generator, encoder)
    editable = int(generator.editable.sum())
    drawn.clear()
    clock = time.perf_counter if where == "cuda" else time.process_time
    start = clock()
    answer = call().flatten().tolist()  # which waits for a GPU
    seconds = clock() - start
    peak = peak_memory_of_process(where)
    return Cost(seconds, sum(drawn), peak, editable, answer)


def _search(work: Work, generator: StyleGenerator, encoder: Encoder):
    """One step: the original, its counterfactual with a gradient, and where the step led."""
    target = random_target(work.seed).to(generator.style_mean.device)
    delta_t = text_directions(encoder, [ATTRIBUTE], NEUTRAL)
    drawn = torch.Generator().manual_seed(work.seed)
    cosines = torch.randn(1, generator.num_styles, generator=drawn).to(generator.style_mean)
    cosines *= generator.editable
    edits = from_relevance(
        cosines,
        [ATTRIBUTE],
        NEUTRAL,
        delta_t,
        generator.style_std,
        threshold_for(cosines, CHANNELS),
    )
    styles = generator.sample_styles(1, work.seed)
    settings = SearchSettings(steps=1, starts=(1.0,), batch=work.batch)
    held = ("a smiling face", NEUTRAL)

    def call() -> Tensor:
        found = search(generator, target, encoder, edits, styles, settings, held, work.seed)
        return torch.cat((found.trajectory_p, found.trajectory_w))

    return call


def _gradient(work: Work, generator: StyleGenerator, encoder: Encoder):
    delta_t = text_directions(encoder, [ATTRIBUTE], NEUTRAL)
    styles = generator.sample_styles(work.images, work.seed)
    return lambda: gradient_relevance(generator, encoder, delta_t, styles, batch=work.batch)


def _relevance(work: Work, generator: StyleGenerator, encoder: Encoder):
    rows = generator.editable.nonzero()[:, 0]
    chosen = rows[torch.linspace(0, len(rows) - 1, work.channels).long()]
    few = torch.zeros_like(generator.editable)
    few[chosen] = True

    def call() -> Tensor:
        everything, generator.editable = generator.editable, few
        try:
            M = relevance_matrix(
                generator, encoder, work.images, batch=work.batch, cache=None, seed=work.seed
            )
        finally:
            generator.editable = everything
        return M[chosen]

    return call


WORKS = {"search": _search, "gradient": _gradient, "relevance": _relevance}


if __name__ == "__main__":
    print(json.dumps(asdict(run(Work(**json.loads(sys.argv[1]))))))
