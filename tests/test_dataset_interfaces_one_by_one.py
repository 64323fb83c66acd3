"""The usual way learns the same words and paints the same pictures; only it takes longer."""

import numpy as np
import pytest
import torch
from PIL import Image

from painter_standins import pipeline
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.folders import ClassFolder
from visiondx.dataset_interfaces.generation import asked, paint
from visiondx.dataset_interfaces.inversion import (
    Inversion,
    Lesson,
    Progress,
    learn_tokens,
    take_steps,
)
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.dataset_interfaces.tokens import encode_prompts
from visiondx.models.painter import Painter
from visiondx.models.soft_words import soft_word
from visiondx.search.descent import Descent
from visiondx_worlds.marking.dataset_interfaces.one_by_one import (
    EncodedAgain,
    encoding_again,
    one_by_one,
    paint_one_by_one,
)

STEPS = 3
SETTINGS = Inversion(
    templates=("a <class>", "the <class> dog"),
    batch=2,
    descent=Descent(STEPS, 0.05, "adam", decay=1e-2),
)


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    pipe = pipeline(tmp_path_factory.mktemp("painter"))
    return Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


@pytest.fixture(scope="module")
def data(tmp_path_factory, painter) -> ClassFolder:
    """Three classes of four images, larger than the painter's and not square."""
    home, source = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("a", "b", "dog"):
        (home / name).mkdir()
        for k in range(4):
            values = source.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(values).save(home / name / f"{k}.png")
    return ClassFolder.read(home, painter.size)


def test_latents_are_those_that_are_kept(painter, data) -> None:
    lesson = Lesson.make(painter, data, SETTINGS, 3, None)
    again = encoding_again(lesson, data).latents.values
    assert again.shape == (12, 2)
    drawn = torch.tensor([0, 7, 7, 11]), torch.tensor([0, 0, 1, 1])
    kept = lesson.latents.values[drawn]
    torch.testing.assert_close(again[drawn], kept, atol=2e-3, rtol=2e-3)
    assert (kept[1] - kept[2]).abs().max() > 0.02  # a mirror matters
    other = ClassFolder(
        data.folder, ("a", "b", "cat"), data.paths, data.labels, data.size, data.content
    )
    with pytest.raises(InputError, match="The lesson is of other classes"):
        encoding_again(lesson, other)


def test_the_same_words_are_learned(painter, data, monkeypatch) -> None:
    known = learn_tokens(painter, data, SETTINGS, seed=3)
    lesson = Lesson.make(painter, data, SETTINGS, 3, None)
    encoded = []
    plain = EncodedAgain.__getitem__
    monkeypatch.setattr(
        EncodedAgain, "__getitem__", lambda self, at: encoded.append(len(at[0])) or plain(self, at)
    )
    found = []
    for own in one_by_one(encoding_again(lesson, data)):
        (name,) = own.latents.classes
        start = soft_word(painter, name, 1).float()[None]
        progress = Progress.begin(start, STEPS)
        take_steps(own, progress, start)
        found.append(own.held(progress.vectors, start))
    assert encoded == [1] * STEPS * 3  # every image of every step
    torch.testing.assert_close(torch.cat(found), known.vectors, atol=1e-4, rtol=0)
    starts = torch.stack([soft_word(painter, name, 1) for name in data.classes])
    assert (known.vectors - starts).abs().amax((1, 2)).min() > 0.02


def test_the_same_pictures_are_painted(painter, data, tmp_path, monkeypatch) -> None:
    tokens = learn_tokens(painter, data, SETTINGS, seed=3)
    prompts = {name: tokens.prompt("a <class> dog", name) for name in tokens.classes}
    rows = asked(Shift.of("d"), prompts, 2, seed=1)
    words = encode_prompts(painter, list(prompts.values()), tokens)
    paint(painter, dict(zip(prompts, words, strict=True)), rows, tmp_path / "one", 4)
    painted = []
    plain = Painter.forward
    monkeypatch.setattr(
        Painter, "forward", lambda self, c, n: painted.append(len(c)) or plain(self, c, n)
    )
    paint_one_by_one(painter, tokens, rows, tmp_path / "other")
    assert painted == [1] * 6
    for row in rows:
        one, other = (
            np.asarray(Image.open(tmp_path / home / row.file)).astype(int)
            for home in ("one", "other")
        )
        assert np.abs(one - other).max() <= 1
        assert one.std() > 1
