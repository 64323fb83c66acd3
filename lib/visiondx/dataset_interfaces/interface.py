"""A dataset interface: images of a data set's own classes under any shift that words describe.

interface = DatasetInterface.fit(images, painter, encoder, kept="runs/mine")
interface.generate("in the snow", n=50, seed=0, folder="runs/mine/images")
interface = interface.with_threshold("in the snow", 0.21)
interface.filter("runs/mine/images")              # yields; the manifest says what is kept
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, reading, result_key
from visiondx.core.seeds import check_seed
from visiondx.dataset_interfaces.clip_filter import ClipFilter, spoken
from visiondx.dataset_interfaces.folders import ImagesByClass, by_class
from visiondx.dataset_interfaces.generation import asked, open_home, paint, shift_of
from visiondx.dataset_interfaces.inversion import Inversion, learn_tokens
from visiondx.dataset_interfaces.manifest import decide, homes, score, yields
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.dataset_interfaces.tokens import ClassTokens, encode_prompts
from visiondx.models.encoder import Encoder
from visiondx.models.painter import Painter

METHOD = 1  # raised with every change that gives other images for the same input
BATCH = 64
TOKENS, ABOUT = "tokens.safetensors", "interface.json"


@dataclass(frozen=True)
class DatasetInterface:
    """A painter that knows the classes of a data set, and a filter of what it paints.

    words: {class: what captions call it, and prompts without a token}; its keys are the classes.
    tokens: of these classes; None paints the words themselves, a baseline.
    prints: hashes of painter and encoder, made where it is None.

    Raises:
        InputError: tokens of another painter, or a filter of another encoder or other classes.
    """

    painter: Painter
    encoder: Encoder
    words: Mapping[str, str]
    clip: ClipFilter
    tokens: ClassTokens | None = None
    prints: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.prints is None:
            made = {"painter": digest(**self.painter.state_dict())}
            object.__setattr__(self, "prints", made | {"encoder": self.encoder.fingerprint})
        if self.tokens is not None:
            self.tokens.check(self.painter)
            self.tokens.only(*self.words)
        if self.clip.encoder != self.prints["encoder"]:
            raise InputError(
                "The filter's thresholds belong to another encoder: fit it with this one."
            )
        self.clip.check(Shift.named("base"), self.classes)

    @classmethod
    def fit(
        cls,
        images: ImagesByClass | Mapping[str, Tensor],
        painter: Painter,
        encoder: Encoder,
        settings: Inversion | None = None,
        *,
        words: Mapping[str, str] | None = None,
        start: str | None = None,
        teacher: Painter | None = None,
        validation: ImagesByClass | Mapping[str, Tensor] | None = None,
        seed: int = 0,
        kept: str | Path | None = None,
    ) -> DatasetInterface:
        """Learn the classes' tokens, and the filter's t_class.

        Args:
            images: a ``ClassFolder``, or {class: (n, 3, S, S) in [0, 1]}, of the painter's size.
            settings: of textual inversion.
            words: {class: its description}, where its name is not what people call it.
            start: one broad word from which all tokens start (appendix D); None for their words.
            teacher: with which tokens are learned, where `painter` is distilled to a few steps.
            validation: real images of the same classes for t_class; None: `images` again, which is
                no leak, for the encoder learns nothing from them.
            kept: a folder in which a killed run goes on.

        Raises:
            InputError: see ``learn_tokens`` and ``ClipFilter.fit``.
        """
        data = by_class(images)
        said = dict(zip(data.classes, spoken(data.classes, words), strict=True))
        real = data if validation is None else by_class(validation)
        if set(real.classes) != set(data.classes):
            odd = sorted(set(real.classes) ^ set(data.classes))
            raise InputError(f"The validation images must have the same classes, not {odd[0]!r}.")
        clip = ClipFilter.fit(real, encoder, said)  # the shorter of the two: errors show early
        tokens = learn_tokens(
            teacher or painter, data, settings, words=start or said, seed=seed, kept=kept
        )
        return cls(painter, encoder, said, clip, tokens)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.words)

    def by_name(self) -> DatasetInterface:
        """The baseline: the same painter asked in the classes' words."""
        return replace(self, tokens=None)

    def with_threshold(
        self, shift: str | Shift, threshold: float | None = None
    ) -> DatasetInterface:
        """With t_shift of one shift; see ``ClipFilter.with_shift``."""
        return replace(self, clip=self.clip.with_shift(_shift(shift), threshold))

    def prompts(self, shift: str | Shift, classes: Iterable[str] | None = None) -> dict[str, str]:
        """{class: what the painter is asked}. Raises InputError for an unknown class."""
        names = self.classes if classes is None else tuple(classes)
        unknown = [name for name in names if name not in self.words]
        if unknown:
            raise InputError(f"No class {unknown[0]!r}: choose from {', '.join(self.classes)}.")
        text = _shift(shift)
        if self.tokens is None:
            return {name: text.asks(self.words[name]) for name in names}
        return {name: self.tokens.prompt(text.prompt, name) for name in names}

    def generate(
        self,
        shift: str | Shift,
        classes: Iterable[str] | None = None,
        n: int = 50,
        seed: int = 0,
        *,
        folder: str | Path,
        batch: int = BATCH,
    ) -> pd.DataFrame:
        """Paint n images of each class under a shift into ``folder/<shift>/<class>/``.

        What is there is not painted again, so a killed run goes on, and a later one may ask for
        more images or classes. Each is the same image in any case; of a batch with other images in
        it, up to rounding.

        Args:
            shift: of Table 1 by its name, words such as "wearing a hat", or a ``Shift``.
            classes: None for all. batch: images painted at once, of several classes.

        Returns:
            the shift's manifest, see ``manifest.read_manifest``: all images in its folder.

        Raises:
            InputError: an unknown class, a prompt that is too long, or a folder with images of
                another interface or seed.
        """
        check_seed(seed)
        shift = _shift(shift)
        prompts = self.prompts(shift, classes)
        rows = asked(shift, prompts, n, seed)
        texts = list(prompts.values())
        if self.tokens is None:
            with torch.no_grad():
                condition = self.painter.encode(self.painter.tokens(texts))
        else:
            condition = encode_prompts(self.painter, texts, self.tokens)
        home = Path(folder) / shift.folder
        open_home(home, shift, self._key(shift, seed))
        paint(self.painter, dict(zip(prompts, condition, strict=True)), rows, home, batch)
        return score(home, shift, rows, self.words, self.encoder)

    def _key(self, shift: Shift, seed: int) -> str:
        """Of all that images and their scores follow from, but class and number."""
        painter = self.painter
        how = [painter.steps, painter.guidance, repr(dict(painter.scheduler.config))]
        tokens = None
        if self.tokens is not None:
            tokens = [self.tokens.names, digest(vectors=self.tokens.vectors)]
        said = [shift.name, shift.prompt, shift.caption, shift.style]
        words = sorted(self.words.items())
        return result_key(METHOD, dict(self.prints), tokens, words, how, said, seed)

    def filter(self, folder: str | Path) -> pd.DataFrame:
        """Decide which images are kept, of all shifts in a folder or of one shift's own.

        Returns:
            the yields, see ``manifest.yields``; the manifests say it of each image.

        Raises:
            InputError: a shift without a threshold, before anything is decided.
        """
        found = homes(folder)
        for home in found:
            self.clip.check(shift_of(home), self.classes)
        return yields(pd.concat([decide(home, self.clip) for home in found]))

    def save(self, folder: str | Path) -> None:
        """Write words and thresholds, and the tokens if there are any."""
        if self.tokens is not None:
            self.tokens.save(Path(folder) / TOKENS)
        about = {"words": dict(self.words), "clip": asdict(self.clip)}
        about["tokens"] = self.tokens is not None
        with atomic_write(Path(folder) / ABOUT) as path:
            path.write_text(json.dumps(about, indent=2), "utf-8")

    @classmethod
    def load(cls, folder: str | Path, painter: Painter, encoder: Encoder) -> DatasetInterface:
        """What ``save`` wrote.

        Raises:
            InputError: nothing there, a damaged file, or tokens and thresholds of other models.
        """
        file = Path(folder) / ABOUT
        if not file.is_file():
            raise InputError(f"No dataset interface in {folder}: write one with its save.")
        with reading(file, "fit the interface again"):
            about = json.loads(file.read_text("utf-8"))
            words, clip, learned = about["words"], ClipFilter(**about["clip"]), about["tokens"]
        tokens = ClassTokens.load(Path(folder) / TOKENS, painter) if learned else None
        return cls(painter, encoder, words, clip, tokens)


def _shift(shift: str | Shift) -> Shift:
    return shift if isinstance(shift, Shift) else Shift.of(shift)
