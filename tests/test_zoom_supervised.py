from dataclasses import replace
from typing import ClassVar

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pytorch_msssim import ssim
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.agreement import mean_spearman, spearman, split_half
from visiondx.zoom.search import SearchSettings
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.zoom import supervised
from visiondx_worlds.marking.zoom.supervised import (
    Renderer,
    ends,
    run_supervised,
    supervised_search,
)
from visiondx_worlds.marking.zoom.truth import true_sensitivity
from visiondx_worlds.worlds import faces
from visiondx_worlds.worlds.base import Attributes, World, category, presence, uniform

NAMES = ("lamp", "shade", "red")
PAINT = (0.2, 0.9)  # of what is not red, and of what is


class Lamps(World):
    """Three bands of a 12 x 12 picture: how bright a lamp is, a shade, and one of two paints.

    A shade puts the lamp out; the picture is as bright as the room.
    """

    name, size, binary = "lamps", 12, NAMES
    columns: ClassVar = {
        "lamp": presence(0.5),
        "shade": presence(0.5),
        "paint": category((0.5, 0.5)),
        "room": uniform(0.8, 1.0),
    }

    def set(self, attributes, name, present):
        if name == "red":
            return attributes.replace(paint=float(present))
        changed = super().set(attributes, name, present)
        return changed.replace(lamp=0.0) if present and name == "shade" else changed

    def special(self, attributes):
        return {"red": attributes["paint"] == 1}

    def draw(self, attributes, size):
        paint = attributes.values.new_tensor(PAINT)[attributes["paint"].long()]
        rows = torch.stack([0.1 + 0.8 * attributes["lamp"] ** 2, attributes["shade"], paint], 1)
        rows = (rows * attributes["room"][:, None]).repeat_interleave(4, 1)
        return rows[:, None, :, None].expand(-1, 3, -1, 12)


class Bands(nn.Module):
    """logit = Σ weight_i (mean of band i - 1/2)."""

    def __init__(self, *weights):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights))
        self.eval()

    def forward(self, images):
        bands = images.mean((1, 3)).unflatten(1, (3, 4)).mean(2)
        return (bands - 0.5) @ self.weight.to(images.dtype)


class Reader(nn.Module):
    """Images and texts are the means of the bands."""

    fingerprint, logit_scale = "bands", 10.0

    def embed_images(self, images):
        bands = images.mean((1, 3)).unflatten(1, (3, 4)).mean(2)
        return F.normalize(bands, dim=1)

    def embed_texts(self, texts):
        rows = [[0.1, 0.5, 0.4 + 0.2 * text.startswith("red")] for text in texts]
        return F.normalize(torch.tensor(rows), dim=1)


WORLD = Lamps()
PLAIN = SearchSettings(steps=4, eta=3.0, epsilon=2.0, alpha=1.0, beta=0.0, starts=(-1.0, 1.0))


def run(*weights, attributes=NAMES, images=20, **changed):
    target = Target(Bands(*weights))
    settings = replace(PLAIN, **changed)
    return supervised_search(WORLD, target, attributes, images, 3, settings), target


def test_the_planted_attribute_is_found_and_what_the_target_does_not_see_is_not():
    for sign in (1.0, -1.0):
        found, _ = run(sign * 9.0, 0.0, 0.5)
        h = dict(zip(NAMES, found.sensitivity.raw, strict=True))
        assert found.sensitivity.place("lamp") == 1
        assert h["lamp"] > 0.5 > 5 * h["red"] > 0
        assert h["lamp"] > h["shade"]  # which matters only where it puts a lamp out
        assert found.sensitivity.source == "supervised"
    blind, _ = run(0.0, 0.0, 9.0)
    assert blind.sensitivity.raw[:2].tolist() == [0, 0]
    assert blind.sensitivity.apart


def test_both_ends_are_the_intervention_and_the_original_is_one_of_them():
    scenes = WORLD.sample(20, 3)
    for column, name in enumerate(NAMES):
        off, on = ends(WORLD, scenes, name)
        has = WORLD.labels(scenes)[:, column]
        assert torch.equal(torch.where(has[:, None], on, off), scenes.values)
    found, target = run(9.0, -3.0, 4.0, steps=1, eta=1e-9, starts=(-2.0, 2.0))
    truth = true_sensitivity(WORLD, target, NAMES, 20, 3)
    assert torch.allclose(found.sensitivity.change, truth.change, atol=1e-5)
    assert torch.equal(found.share.round(), (~WORLD.labels(scenes)).float())  # the other end
    longer, _ = run(9.0, -3.0, 4.0, starts=(-2.0, 2.0))
    assert (longer.sensitivity.change >= truth.change - 1e-5).all()


def test_what_follows_from_an_attribute_moves_with_it_and_indices_are_mixed():
    lit = Attributes(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), WORLD.names)
    renderer = Renderer(WORLD)
    assert renderer.indices.tolist() == [False, False, True, False]
    quarter = torch.tensor([0.25])

    def bands(name):
        images = renderer.synthesize(renderer.between(*ends(WORLD, lit, name), quarter))
        return images[0, 0, [0, 4, 8], 0].tolist()

    # shade: off 0, on 0.985; the lamp goes from 1 to 0; a lamp's light is its square
    assert bands("shade") == pytest.approx([0.1 + 0.8 * 0.75**2, 0.25 * 0.985, 0.2])
    assert bands("red") == pytest.approx([0.9, 0.0, 0.75 * 0.2 + 0.25 * 0.9])
    both = torch.cat([renderer.between(*ends(WORLD, lit, n), quarter) for n in ("shade", "red")])
    assert torch.allclose(
        renderer.synthesize(both)[:, 0, [0, 4, 8], 0],
        torch.tensor([bands("shade"), bands("red")]),
    )
    assert torch.equal(renderer.synthesize(renderer.styles(lit)), WORLD.render(lit))


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma"), [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, 0.5, 0.3)]
)
def test_gradient_through_the_renderer_equals_finite_differences(alpha, beta, gamma):
    """One step from w = 0.4 shows the gradient; Eq. 4 is written again in float64."""
    target, encoder, words = Target(Bands(4.0, -2.0, 3.0)), Reader(), ("red", "grey")
    settings = SearchSettings(
        steps=1, eta=1e-2, epsilon=2.0, alpha=alpha, beta=beta, gamma=gamma, starts=(0.4,)
    )
    renderer, scenes = Renderer(WORLD), WORLD.sample(4, 5)
    lines = [ends(WORLD, scenes, name) for name in NAMES]
    seen = []

    class Watched(Renderer):
        def synthesize(self, styles):
            seen.append(styles[:, -1].detach().clone())
            return super().synthesize(styles)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "Renderer", Watched)
        supervised_search(WORLD, target, NAMES, 4, 5, settings, encoder, words)
    _, before, after = seen
    assert torch.allclose(before, torch.tensor(0.6))  # λ = (1 + 0.4 / 2) / 2
    gradient = ((before - after) * 4 / 1e-2).view(4, 3)  # w = 4 λ - 2
    texts = encoder.embed_texts(list(words)).double()

    def loss(i, n, w):
        off, on = (side[i : i + 1].double() for side in lines[n])
        share = torch.tensor([(1 + w / 2) / 2], dtype=torch.float64)
        edited = renderer.synthesize(renderer.between(off, on, share))
        x = WORLD.render(Attributes(scenes.values[i : i + 1].double(), WORLD.names))
        f, f_hat = (torch.sigmoid(target.module(image)) for image in (x, edited))
        total = -alpha * ((1 - f) * f_hat.log() + f * (1 - f_hat).log())
        total = total + beta * (1 - ssim(edited, x, data_range=1.0))
        logits = [10 * encoder.embed_images(image) @ texts.T for image in (x, edited)]
        total = total - gamma * (F.softmax(logits[0], 1) * F.log_softmax(logits[1], 1)).sum()
        return float(total.detach())

    expected = [
        [(loss(i, n, 0.4 + 1e-4) - loss(i, n, 0.4 - 1e-4)) / 2e-4 for n in range(3)]
        for i in range(4)
    ]
    assert torch.allclose(gradient, torch.tensor(expected), rtol=2e-2, atol=1e-3)


def test_the_kept_step_is_the_most_counterfactual_and_can_be_drawn_again(tmp_path):
    found, target = run(9.0, -3.0, 4.0, eta=40.0)
    with torch.no_grad():
        assert torch.allclose(target(found.originals(range(20))), found.p_original, atol=1e-5)
        for column in range(3):
            p = target(found.images(range(20), column))
            assert torch.allclose(p, found.p[:, column], atol=1e-5)
    strongest = found.strongest(0, 3)
    assert found.sensitivity.change[strongest[0], 0] == found.sensitivity.change[:, 0].max()
    found.save(tmp_path)
    table = pd.read_csv(tmp_path / "supervised.csv")
    row = table[(table.image == 4) & (table.attribute == "red")].iloc[0]
    assert (row.share, row.p) == (pytest.approx(found.share[4, 2]), pytest.approx(found.p[4, 2]))
    titles = [axis.get_title() for axis in found.plot(pairs=2).axes]
    best = strongest[0]
    assert titles[:2] == [f"{found.p_original[best]:.2f}", f"→ {found.p[best, 0]:.2f}"]
    assert len(titles) == 12


def test_batch_is_a_memory_limit_only():
    whole, _ = run(9.0, -3.0, 4.0, beta=0.3)
    parts, _ = run(9.0, -3.0, 4.0, beta=0.3, batch=7)
    assert torch.allclose(whole.share, parts.share, atol=1e-5)


def test_of_a_faces_columns_the_categories_are_indices_and_all_lines_have_a_slope():
    renderer, scenes = Renderer(faces), faces.sample(3, 0)
    found = {n for n, whole in zip(faces.names, renderer.indices, strict=True) if whole}
    colours = {f"{part}_colour" for part in ("eye", "frame", "earring", "hair")}
    assert found == colours | {"skin_tone"}
    names = [name for name in faces.binary if name != "young"]  # most ages look alike
    off, on = (torch.cat(side) for side in zip(*(ends(faces, scenes, n) for n in names)))
    share = torch.full((len(off),), 0.5, requires_grad=True)
    images = renderer.synthesize(renderer.between(off, on, share))
    weight = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((images * weight).sum(), share)
    flat = slope.view(-1, 3).abs().amax(1) < 1e-3
    assert [n for n, is_flat in zip(names, flat, strict=True) if is_flat] == []


def test_a_palettes_mixed_pictures_are_pictures_in_the_mixed_colour():
    """What the docstring claims: shapes fixed, a face is linear in its skin's colour."""
    pale = faces.sample(2, 1).replace(skin_tone=0.0, light_gain=0.9)
    mixes = [faces.render(pale.replace(skin_tone=tone)).double() for tone in (2.0, 3.0, 4.0)]
    tones = torch.tensor([(0.84, 0.63, 0.45), (0.70, 0.50, 0.34), (0.53, 0.36, 0.24)])
    part = (tones[0] - tones[1]) / (tones[0] - tones[2])  # how far each channel of tone 3 is
    expected = torch.lerp(mixes[0], mixes[2], part[:, None, None].double())
    assert (expected - mixes[1]).abs().max() < 1e-5


def test_finished_seeds_are_kept(tmp_path, monkeypatch):
    target = Target(Bands(9.0, 0.0, 0.5))
    target.config = {"label": None, "planted": "lamp"}
    monkeypatch.setattr(supervised.Target, "load", lambda name: target)
    monkeypatch.setattr(supervised, "fingerprint", lambda name: "weights")
    given = {"seeds": [3, 4], "images": 5, "settings": PLAIN, "folder": tmp_path}
    first = run_supervised("x", WORLD, NAMES, Reader(), **given)
    monkeypatch.setattr(supervised, "supervised_search", None)  # not called again
    again = run_supervised("x", WORLD, NAMES, Reader(), **given)
    assert torch.equal(first.change, again.change)
    assert len(again.change) == 10
    assert again.source == "supervised"
    assert again.rank[0] == "lamp"
    for version in ("METHOD", "SEARCHING"):  # another method has other results
        with monkeypatch.context() as patch:
            patch.setattr(supervised, version, 99)
            with pytest.raises(TypeError, match="not callable"):
                run_supervised("x", WORLD, NAMES, Reader(), **given)


def test_input_is_checked():
    with pytest.raises(InputError, match="choose from lamp, shade, red"):
        run(1.0, 1.0, 1.0, attributes=["hat"])
    with pytest.raises(InputError, match="nothing"):
        run(1.0, 1.0, 1.0, attributes=[])
    with pytest.raises(InputError, match="2 images or more"):
        run(1.0, 1.0, 1.0, images=1)
    with pytest.raises(InputError, match="need an encoder"):
        supervised_search(WORLD, Target(Bands(1.0, 0.0, 0.0)), NAMES, consistency=("red", "grey"))


def of(*rows, source="search", names="abc"):
    change = torch.tensor(rows)
    return Sensitivity(tuple(names), change, change > 0.5, source)


def test_pooled_images_of_one_kind():
    pooled = Sensitivity.pool([of([0.2, 0.4, 0.6]), of([0.4, 0.0, 0.6])])
    assert pooled.raw == pytest.approx([0.3, 0.2, 0.6])
    with pytest.raises(InputError, match="same attributes and source"):
        Sensitivity.pool([of([0.2, 0.4, 0.6]), of([0.2, 0.4, 0.6], source="supervised")])
    with pytest.raises(InputError, match="0 of"):
        Sensitivity.pool([])


def test_mean_rank_correlation_by_hand():
    low, high = of(*[[0.1, 0.5, 0.9]] * 4), of(*[[0.9, 0.5, 0.1]] * 4)
    mid = of(*[[0.1, 0.9, 0.5]] * 4)
    found = mean_spearman([(low, low), (low, high), (low, mid)])
    assert found.value == pytest.approx((1 - 1 + 0.5) / 3)
    assert found.n == 3
    assert found.low == pytest.approx(found.high)  # these targets, and images all alike
    one = mean_spearman([(low, mid)])
    assert one.value == one.low == one.high == spearman(low, mid).value == 0.5
    with pytest.raises(InputError, match="one target or more"):
        mean_spearman([])
    with pytest.raises(InputError, match="same three"):
        mean_spearman([(low, of([0.1, 0.2, 0.3], names="abd"))])


def test_split_half_is_one_without_noise_and_nothing_with_nothing_else():
    clear = of(*[[0.1, 0.5, 0.9]] * 6)
    found = split_half([clear])
    assert (found.value, found.low, found.high, found.n) == (1, 1, 1, 1)
    # two images of each kind; halves agree fully, or disagree, as the kinds fall
    torn = of(*[[0.0, 0.5, 1.0]] * 2, *[[1.0, 0.5, 0.0]] * 2)
    # of the 3 ways to halve {A, A, B, B}: AA|BB gives -1, twice AB|AB, where all are equal, 0
    assert split_half([torn], draws=4000).value == pytest.approx(-1 / 3, abs=0.03)
    both = split_half([of(*[[0.1, 0.5, 0.9]] * 4), torn], draws=4000)
    assert both.value == pytest.approx(1 / 3, abs=0.02)
    assert both.n == 2
    noise = torch.rand(40, 9, generator=torch.Generator().manual_seed(0)).tolist()
    found = split_half([of(*noise, names="abcdefghi")])
    assert abs(found.value) < 0.35
    assert -1 <= found.low < found.value < found.high <= 1
    with pytest.raises(InputError, match="the same images of all"):
        split_half([clear, torn])
    with pytest.raises(InputError, match="four or more images, got 3 and 2"):
        split_half([of([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])])
