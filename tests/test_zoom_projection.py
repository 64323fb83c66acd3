"""Photographs in W+: what is minimised, what counts as reached, and what happens when it breaks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.models.generator import StyleGenerator
from visiondx.models.photographs import Photographs
from visiondx.models.stylegan2 import Generator
from visiondx.models.target import Target
from visiondx.run import checks, cli
from visiondx.search.descent import Descent
from visiondx.search.objective import reading_and_gradient
from visiondx.show.report import write_diagnosis
from visiondx.zoom import projection
from visiondx.zoom.diagnose import check, diagnose
from visiondx.zoom.projection import ENCODER, PULL, Reconstruction, _Search, project, spacing
from visiondx.zoom.search import SearchSettings
from visiondx_worlds.marking.zoom.truth import with_truth
from zoom_standins import NEUTRAL, GridClassifier, GridEncoder, GridWorld, cells, prompt

STEPS = 40
OWN = ["a.png", "b & c.png", "sub/d.png"]
OTHERS = ["noise.png", "grey.png", "stripes.png"]


def tiny() -> StyleGenerator:
    """A generator of 16 x 16 pixels, never trained: six w an image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGenerator(Generator(8, 8, {4: 16, 8: 16, 16: 8}, mapping_layers=2), {})
    generator.measure(1000)
    return generator


def pictures(generator) -> Photographs:
    """Three of the generator's own, and three that it cannot draw."""
    own = generator.synthesize(generator.sample_styles(3, 5))
    noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    stripes = (torch.arange(16) % 4 < 2).float().expand(3, 16, 16)
    others = torch.stack([noise, torch.full((3, 16, 16), 0.5), stripes])
    return Photographs((*OWN, *OTHERS), torch.cat([own, others]), {"gone.png": "Is a directory"})


@pytest.fixture(scope="module")
def generator():
    return tiny()


@pytest.fixture(scope="module")
def found(generator):
    target = Target(GridClassifier({0: 9.0, 3: 4.0}))
    return project(generator, GridEncoder(), pictures(generator), target, steps=STEPS, cache=None)


def test_what_is_minimised_and_its_gradient(generator):
    encoder, x = GridEncoder(), pictures(generator).images[[0, 3]]
    w = generator.sample_w(1000, 0)
    mean, std = w.mean(0), w.std(0)
    v = 0.5 * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(2))
    ours = Reconstruction(generator, encoder, x, mean, std)
    _, gradient = reading_and_gradient(ours, v, 0, str)

    def expected(v: Tensor) -> float:  # of both rows, in float64 from the picture on
        drawn = generator.synthesize(generator.styles(mean + std * v.float())).double().numpy()
        theirs, pixels = x.double().numpy(), []
        while len(pixels) < 3:  # 16, 8 and 4 pixels; halved once more, fewer than 4 were left
            pixels.append(((drawn - theirs) ** 2).mean((1, 2, 3)))
            drawn, theirs = (
                im.reshape(2, 3, im.shape[2] // 2, 2, -1, 2).mean((3, 5)) for im in (drawn, theirs)
            )
        e = [
            encoder.embed_images(im).double()
            for im in (generator.synthesize(generator.styles(mean + std * v.float())), x)
        ]
        encoded, pull = 1 - (e[0] * e[1]).sum(1), v.double().square().mean((1, 2))
        return float(np.mean(pixels, 0).sum() + (ENCODER * encoded + PULL * pull).sum())

    state = ours.observe(v)
    assert sum(float((t.weight * t.loss(state)).sum()) for t in ours.terms) == pytest.approx(
        expected(v), rel=1e-5
    )
    for at in [(0, 0, 0), (0, 5, 3), (1, 2, 7)]:
        step = torch.zeros_like(v)
        step[at] = 0.02
        slope = (expected(v + step) - expected(v - step)) / 0.04
        assert float(gradient[at]) == pytest.approx(slope, rel=0.05, abs=2e-5)


def test_own_pictures_are_reached_and_what_it_cannot_draw_is_not(found):
    assert found.reached.tolist() == [True] * 3 + [False] * 3
    assert (found.rms[:3] < 25).all()
    assert (found.cosine[:3] > 0.97).all()
    assert set(found.left_out) == {*OTHERS, "gone.png"}
    assert "to the encoder" in found.left_out["noise.png"]
    assert found.left_out["grey.png"].startswith("it is nearly of one colour (contrast 0 levels,")
    assert found.left_out["gone.png"] == "it cannot be read: Is a directory"
    assert found.said[0] == "The generator reaches 3 of 7 photographs."
    assert sum(line.startswith("Left out: ") for line in found.said) == 4


def test_errors_and_answers_are_those_of_the_pictures(found, generator):
    assert found.w.shape == (6, 6, 8)
    assert torch.allclose(found.styles, generator.styles(found.w), atol=1e-6)
    assert torch.allclose(found.reconstructions, generator.synthesize(found.styles), atol=1e-6)
    gap = (found.reconstructions - found.photographs.images).double()
    assert torch.allclose(found.rms.double(), 255 * gap.pow(2).mean((1, 2, 3)).sqrt())
    contrast = found.photographs.images.var((2, 3), correction=0).mean(1).sqrt()
    assert torch.allclose(found.contrast, 255 * contrast, atol=1e-3)
    pair = found.photographs.images.flip(3), found.reconstructions.flip(3)
    e, drawn = (GridEncoder().embed_images(images) for images in pair)
    assert torch.allclose(found.mirrored, (e * drawn).sum(1), atol=1e-6)
    logits = 9 * cells(found.photographs.images)[:, 0] + 4 * cells(found.photographs.images)[:, 3]
    assert torch.allclose(found.answers[0], logits.sigmoid(), atol=1e-6)
    frame = found.to_frame()
    assert frame["name"].tolist() == [*OWN, *OTHERS, "gone.png"]
    assert frame["reached"].tolist() == [True] * 3 + [False] * 4
    assert np.allclose(frame["p_reconstruction"][:6], found.answers[1])


def test_a_picture_that_the_encoder_takes_for_another_is_left_out(found):
    first = torch.arange(6) == 0
    other = replace(found, mirrored=torch.where(first, 0.5, found.mirrored))
    assert "to the encoder" in other.left_out["a.png"]
    other = replace(other, rms=torch.where(torch.arange(6) == 1, 90.0, found.rms))
    assert other.left_out["b & c.png"].startswith("the pixels are 90 levels off (RMS, at most")
    with pytest.raises(InputError, match=r"reaches 1 of 6 .* needs 2 \(a.png: to the encoder"):
        other.reached_styles()
    assert torch.equal(replace(found, rms=found.rms * torch.nan).reached, torch.zeros(6) > 0)


def test_it_is_drawn_and_saved(found, tmp_path):
    figure = found.plot("Mine", columns=4)
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 16  # two rows of four, twice
    assert titles[4].endswith(f"±{found.rms[0]:.0f}")
    assert titles[7].endswith("✗")
    found.save(tmp_path)
    assert (tmp_path / "projection.csv").read_text("utf-8").count("\n") == 8
    assert (tmp_path / "projection.txt").read_text("utf-8").splitlines() == found.said
    assert (tmp_path / "projection.safetensors").is_file()


class Failing(nn.Module):
    """An encoder that counts what it is asked, and goes wrong at one call."""

    def __init__(self, at: int | None = None, wrong=None):
        super().__init__()
        self.reader, self.at, self.wrong, self.calls = GridEncoder(), at, wrong, 0
        self.image_fingerprint = "reader"

    def embed_images(self, images: Tensor) -> Tensor:
        self.calls += 1
        e = self.reader.embed_images(images)
        return e if self.calls != self.at else self.wrong(e)


def interrupt(_):
    raise KeyboardInterrupt


@pytest.fixture
def few(monkeypatch):
    """The encoder is then asked twice of the random images, twice of the photographs before a
    descent of 10 steps, 11 times in it, and 4 times after it; the state is kept at 3, 6, 9 and 10.
    """
    monkeypatch.setattr(projection, "STARTS", 8)
    monkeypatch.setattr(projection, "EVERY", 3)
    return {"steps": 10}


def test_killed_and_resumed_is_the_same_bit_for_bit(generator, tmp_path, few):
    photographs, whole = pictures(generator).of(range(4)), Failing()
    expected = project(generator, whole, photographs, cache=None, **few)
    assert whole.calls == 2 + 2 + 11 + 4
    with pytest.raises(KeyboardInterrupt):
        project(generator, Failing(2 + 2 + 6, interrupt), photographs, cache=tmp_path, **few)
    rest = Failing()
    resumed = project(generator, rest, photographs, cache=tmp_path, **few)
    assert rest.calls == 2 + 1 + 8 + 4  # from step 3 on, without looking for a start
    for name in ("w", "reconstructions", "rms", "cosine"):
        assert torch.equal(getattr(resumed, name), getattr(expected, name))
    assert resumed.limits == expected.limits
    again, more = Failing(), Failing()
    project(generator, again, photographs, cache=tmp_path, **few)
    assert again.calls == 2 + 1 + 1 + 4  # nothing is descended a second time
    found = project(generator, more, pictures(generator).of([4, 0, 5, 3]), cache=tmp_path, **few)
    assert more.calls == 2 + (2 + 11) + (1 + 1) + 4  # the two that were added, then the others
    assert torch.equal(found.w[[1, 3]], expected.w[[0, 3]])
    assert found.photographs.names == ("grey.png", "a.png", "stripes.png", "noise.png")
    alone = project(generator, GridEncoder(), found.photographs.of([2]), cache=None, **few)
    assert torch.allclose(found.w[2], alone.w[0], atol=1e-3)


def test_nan_names_the_photograph_and_the_step(generator, few):
    def wrong(e):
        return torch.where(torch.arange(len(e))[:, None] == 1, torch.nan, e)

    encoder = Failing(2 + 2 + 2, wrong)
    with pytest.raises(FloatingPointError, match=r"embedding is NaN .* at step 1 for 'b & c.png'"):
        project(generator, encoder, pictures(generator).of(range(3)), cache=None, **few)


def test_bad_input(generator):
    photographs = pictures(generator)
    with pytest.raises(InputError, match=r"draws \(B, 3, 16, 16\): read them"):
        project(generator, GridEncoder(), Photographs(("a",), torch.rand(1, 3, 8, 8)))
    with pytest.raises(InputError, match="steps must be 1 or more"):
        project(generator, GridEncoder(), photographs, steps=0, cache=None)
    with pytest.raises(InputError, match="seed must be"):
        project(generator, GridEncoder(), photographs, seed=-1, cache=None)


def test_a_diagnosis_starts_from_what_is_reached(found, generator, tmp_path):
    target = Target(GridClassifier({0: 9.0, 3: 4.0}))
    words, styles = [prompt(0), prompt(3)], found.reached_styles()
    given = {"styles": styles, "images": 0, "seed": -1, "directions": "gradient", "channels": 8}
    diagnosis = diagnose(
        target, words, NEUTRAL, generator, GridEncoder(), settings=SearchSettings(steps=2), **given
    )
    assert torch.equal(diagnosis.result.styles, styles)
    assert diagnosis.result.seed is None
    expected = target(generator.synthesize(styles))
    assert torch.allclose(diagnosis.result.p_original, expected, atol=1e-6)
    strips = [diagnosis.counterfactuals() for _ in range(2)]
    pairs = [[pair["original"].tolist() for pair in strip[0]["pairs"]] for strip in strips]
    assert pairs[0] == pairs[1]  # without a seed, too, the drawn pair is the same again
    page = write_diagnosis(diagnosis, tmp_path, title="Mine", projection=found)
    html = page.read_text("utf-8")
    assert '<section id="photographs">' in html
    assert "The generator reaches 3 of 7 photographs." in html
    assert "b &amp; c.png" in html
    assert "Ask again with other photographs" in html
    marked = with_truth(diagnosis, GridWorld(), target, images=8)
    assert (marked.truth.seed, marked.truth.attributes) == (100, tuple(words))
    plain = write_diagnosis(diagnosis, tmp_path / "plain", title="Mine").read_text("utf-8")
    assert 'id="photographs"' not in plain


def test_styles_that_cannot_be_searched_are_refused(generator):
    target, words = Target(GridClassifier({0: 9.0})), [prompt(0)]
    wrong = torch.full((2, generator.num_styles), torch.nan)
    for styles, why in [
        (torch.zeros(2, 5), r"styles must have shape \(B, "),
        (torch.zeros(1, generator.num_styles), "B of 2 or more"),
        (wrong, "hold NaN"),
    ]:
        with pytest.raises(InputError, match=why):
            check(target, words, NEUTRAL, generator, GridEncoder(), styles=styles)


def test_the_spacing_of_random_images_by_hand(generator):
    rows = torch.tensor([[0.0, 0], [3, 4], [3, 5], [30, 0]])
    expected = (5 + 1 + 1 + math.hypot(27, 4)) - (1 + math.hypot(27, 4))  # the middle two: 1 and 5
    assert float(spacing(rows)) == pytest.approx(expected / 2)
    find = _Search(generator, GridEncoder(), Descent(1), 0, None)
    drawn = generator.synthesize(generator.styles(generator.sample_w(10_000, 0)[:256])).double()
    rows = 255 * drawn.flatten(1)
    gaps = [float(((rows - row).square().mean(1).sqrt().sort().values)[1]) for row in rows]
    assert find.limits()["rms"] == pytest.approx(np.median(gaps) / 2, rel=1e-4)
    e = GridEncoder().embed_images(drawn.flip(3).float()).double()
    cosines = (e @ e.T).fill_diagonal_(-1).amax(1)
    away = (2 - 2 * cosines).sqrt().quantile(0.5) / 2
    assert find.limits()["mirrored"] == pytest.approx(1 - float(away) ** 2 / 2, rel=1e-4)


def test_a_folder_is_read_as_a_viewer_shows_it(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # what the middle shows
    (tmp_path / "sub").mkdir()
    Image.fromarray(wide).save(tmp_path / "sub" / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(wide).save(tmp_path / "turned.tif", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    found = Photographs.read(tmp_path, 8)
    assert found.names == ("sub/wide.png", "turned.tif")
    assert list(found.unreadable) == ["broken.jpg"]
    assert found.images.shape == (2, 3, 8, 8)
    assert torch.allclose(found.images, torch.tensor(200 / 255), atol=0.12)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"can be read, such as broken.jpg \("):
        Photographs.read(tmp_path / "none", 8)
    with pytest.raises(InputError, match="No folder of images at"):
        Photographs.read(tmp_path / "absent", 8)


ASKED = ["diagnose", "--target", "young", "--attributes", "a face with bangs", "--images"]


def test_images_is_a_number_or_a_folder(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(cli, "_run_and_tell", lambda *given: calls.append(given[2]))
    monkeypatch.chdir(tmp_path)
    for folder, count in (("7 of mine", 2), ("one", 1), ("none", 0)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            Image.new("RGB", (1, 1)).save(tmp_path / folder / f"{i}.png")
    folder = str(tmp_path / "7 of mine")
    for images in ("7", "7 of mine", folder):
        assert cli.main([*ASKED, images]) == 0
    number, *folders = calls
    assert (number["images"], "photographs" in number) == (7, False)
    for each in folders:  # absolute, for the notebook runs elsewhere
        assert (each["photographs"], "images" in each) == (folder, False)
    assert checks.absolute({"photographs": "7 of mine"}) == {"photographs": folder}
    for images, why in [
        ("2.5", "takes a whole number or a folder, got '2.5'"),
        ("gone", "No folder of images at"),
        ("none", "No image in"),
        ("one", "There is one image in"),
    ]:
        assert cli.main([*ASKED, images]) == 2
        assert why in capsys.readouterr().err
        if images != "2.5":
            with pytest.raises(InputError, match=why):
                checks.check_parameters({"photographs": images})
    assert len(calls) == 3
