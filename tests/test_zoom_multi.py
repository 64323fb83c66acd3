import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_msssim import ssim

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.multi import MultiResult, multi_search
from visiondx.zoom.search import SearchSettings, search
from zoom_standins import (
    NEUTRAL,
    GridClassifier,
    GridEncoder,
    GridGenerator,
    along,
    cells,
    prompt,
)

HOLD = (prompt(1), NEUTRAL)


def settings(**changed) -> SearchSettings:
    plain = {"steps": 8, "eta": 3.0, "epsilon": 4.0, "alpha": 1.0, "beta": 0.0, "gamma": 0.1}
    return SearchSettings(**{**plain, "starts": (0.0,), **changed})


def run(weights, channels=(0, 3, 11), images=6, consistency=None, seed=0, **changed):
    generator, target = GridGenerator(), Target(GridClassifier(weights))
    styles = generator.sample_styles(images, seed)
    directions = along(generator, *channels)
    found = multi_search(
        generator, target, GridEncoder(), directions, styles, settings(**changed), consistency, seed
    )
    return found, generator, target


def by_hand(update, p0, slope, steps, eta, epsilon):
    """The linear toy: logit(w) = logit(p0) + slope·w, so ∇L = (σ(logit) - (1 - p0)) slope."""
    w = [0.0] * len(slope)
    first, second, path = [0.0] * len(slope), [0.0] * len(slope), [list(w)]
    for t in range(1, steps + 1):
        logit = math.log(p0 / (1 - p0)) + sum(a * b for a, b in zip(slope, w))
        error = 1 / (1 + math.exp(-logit)) - (1 - p0)
        for i, a in enumerate(slope):
            g = error * a
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            adam = first[i] / (1 - 0.9**t) / (math.sqrt(second[i] / (1 - 0.999**t)) + 1e-8)
            move = {"gradient": g, "sign": (g > 0) - (g < 0), "adam": adam}[update]
            w[i] = min(epsilon, max(-epsilon, w[i] - eta * move))
        path.append(list(w))
    return path


@pytest.mark.parametrize(("update", "eta"), [("gradient", 4.0), ("sign", 0.7), ("adam", 0.5)])
def test_every_step_of_each_update_by_hand(update, eta):
    found, generator, _ = run({0: 30.0, 3: -8.0}, update=update, eta=eta, epsilon=2.0)
    # a channel's deviation moves its cell by a twentieth of it
    slope = [30 * 0.05 * float(generator.style_std[0]), -8 * 0.05 * float(generator.style_std[3])]
    for i, p0 in enumerate(found.p_original.double().tolist()):
        expected = torch.tensor(by_hand(update, p0, [*slope, 0.0], 8, eta, 2.0))
        assert torch.allclose(found.trajectory_w[i], expected, atol=2e-3)
    assert found.trajectory_w.shape == (6, 9, 3)
    assert found.trajectory_p.shape == (6, 9)
    assert found.trajectory_w.abs().max() <= 2.0
    assert not found.w[:, 2].any()  # the target does not see cell 11


@pytest.mark.parametrize(("update", "unit"), [("sign", 0.0), ("adam", 1e-4)])
def test_first_step_has_length_eta_in_every_attribute(update, unit):
    """The sign of the gradient, and at first Adam's step, too: slopes 60 and 0.3 move alike."""
    found, _, _ = run({0: 60.0, 3: -0.3}, update=update, eta=0.25)
    moved = found.trajectory_w[:, 1]
    down = found.p_original > 0.5
    assert torch.allclose(moved[:, :2].abs(), torch.full((6, 2), 0.25), atol=unit + 1e-7)
    assert torch.equal(moved[:, 0] < 0, down)
    assert torch.equal(moved[:, 1] > 0, down)


def test_one_attribute_alone_is_the_single_search():
    terms = {"beta": 0.4, "gamma": 0.2, "starts": (0.5,)}
    for update in ("gradient", "sign", "adam"):
        found, generator, target = run({0: 20.0}, (0,), consistency=HOLD, update=update, **terms)
        single = search(
            generator, target, GridEncoder(), found.directions, found.styles,
            settings(update=update, **terms), HOLD,
        )  # fmt: skip
        assert torch.allclose(found.trajectory_w[:, :, 0], single.trajectory_w[:, :, 0].T)
        assert torch.allclose(found.trajectory_p, single.trajectory_p[:, :, 0].T)


def test_gradient_of_all_terms_equals_finite_differences():
    """One step from w = 0.7 shows the gradient; the loss of Eq. 4 is written again in float64."""
    generator, encoder = GridGenerator(), GridEncoder()
    target = Target(GridClassifier({0: 20.0, 3: -5.0, 1: 2.0}))
    directions = along(generator, 0, 3, 9)
    directions.delta_s[:, 1] = torch.tensor([0.8, -0.3, 0.5])
    styles = generator.sample_styles(3, 5)
    chosen = settings(steps=1, eta=1e-2, epsilon=30.0, alpha=2.0, beta=0.5, gamma=0.25)
    chosen = SearchSettings(**{**vars(chosen), "starts": (0.7,)})
    found = multi_search(generator, target, encoder, directions, styles, chosen, HOLD)
    gradient = (found.trajectory_w[:, 0] - found.trajectory_w[:, 1]) / 1e-2
    x, texts = generator.synthesize(styles.double()), encoder.embed_texts(list(HOLD)).double()

    def loss(i, w):
        edited = generator.synthesize(styles[i : i + 1].double() + w @ directions.delta_s.double())
        f, f_hat = (torch.sigmoid(target.module(image)) for image in (x[i : i + 1], edited))
        logits = [10 * encoder.embed_images(im) @ texts.T for im in (x[i : i + 1], edited)]
        total = -2.0 * ((1 - f) * f_hat.log() + f * (1 - f_hat).log())
        total = total + 0.5 * (1 - ssim(edited, x[i : i + 1], data_range=1.0))
        total = total - 0.25 * (F.softmax(logits[0], 1) * F.log_softmax(logits[1], 1)).sum()
        return float(total.detach())

    step = 1e-4 * torch.eye(3, dtype=torch.float64)
    start = torch.full((3,), 0.7, dtype=torch.float64)
    expected = [
        [(loss(i, start + step[n]) - loss(i, start - step[n])) / 2e-4 for n in range(3)]
        for i in range(3)
    ]
    assert torch.allclose(gradient, torch.tensor(expected), rtol=2e-2, atol=3e-4)


def test_together_they_flip_what_none_flips_alone():
    weights = dict.fromkeys((0, 3, 11), 12.0)
    found, generator, target = run(weights, images=20, steps=12, epsilon=1.0)
    single = search(
        generator, target, None, found.directions, found.styles, settings(steps=12, epsilon=1.0)
    )
    assert (found.flipped | ~single.flipped.any(1)).all()
    gain = found.flipped & ~single.flipped.any(1)
    assert gain.sum() >= 3


def planted(p_original, p, stop_when=None) -> MultiResult:
    p = torch.tensor(p)
    b, steps = p.shape
    generator = GridGenerator()
    return MultiResult.from_trajectories(
        directions=along(generator, 0, 3),
        styles=torch.zeros(b, 16),
        p_original=torch.tensor(p_original),
        trajectory_w=torch.arange(b * steps * 2.0).view(b, steps, 2),
        trajectory_p=p,
        settings={"steps": steps - 1},
        consistency=None,
        seed=None,
        generator=generator,
    )


FOUR = planted(
    [0.4, 0.4, 0.9, 0.1],
    [[0.4, 0.6, 0.3], [0.4, 0.05, 0.5], [0.9, 0.8, 0.6], [0.1, 0.45, 0.9]],
)


def test_flip_rates_by_hand():
    assert FOUR.flipped.tolist() == [True, True, False, True]
    assert FOUR.first_flip.tolist() == [1, 2, -1, 2]
    assert FOUR.flipped_by.int().tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert [FOUR.flip_rate(k).value for k in (0, 1, 2)] == [0, 0.25, 0.75]
    assert FOUR.flip_rate() == FOUR.flip_rate(2)
    rate, resistance = FOUR.flip_rate(1), FOUR.flip_resistance(1)
    assert (resistance.value, resistance.low, resistance.high) == (0.75, 1 - rate.high, 1)
    assert rate.n == 4
    frame = FOUR.rates()
    assert frame["flip_rate"].tolist() == [0, 0.25, 0.75]
    assert frame["flip_resistance"].tolist() == [1, 0.75, 0.25]
    assert frame.iloc[1][["low", "high"]].tolist() == [rate.low, rate.high]
    with pytest.raises(InputError, match="made 2 steps"):
        FOUR.flip_rate(3)


def test_the_kept_step_is_the_farthest_flip_or_else_the_farthest_step():
    # image 1 moves by 0.35 away from the flip at step 1 and by 0.1 across it at step 2
    assert FOUR.step.tolist() == [1, 2, 2, 2]
    assert FOUR.p.tolist() == pytest.approx([0.6, 0.5, 0.6, 0.9])
    assert FOUR.w.tolist() == [[2, 3], [10, 11], [16, 17], [22, 23]]
    assert FOUR.strongest(2) == [3, 0]
    early = FOUR.upto(1)
    assert early.step.tolist() == [1, 1, 1, 1]
    assert early.settings == {"steps": 1}
    assert early.trajectory_w.shape == (4, 2, 2)


def test_at_first_flip_keeps_the_mildest_edit_that_flips():
    mild = planted(
        [0.4, 0.9, 0.2], [[0.4, 0.6, 0.9, 0.7], [0.9, 0.8, 0.6, 0.7], [0.2, 0.1, 0.4, 0.5]]
    )
    first = mild.at_first_flip()
    assert mild.step.tolist() == [2, 2, 3]
    assert first.step.tolist() == [1, 2, 3]  # image 1 never flips: its farthest step stays
    assert first.p.tolist() == pytest.approx([0.6, 0.6, 0.5])
    assert first.w.tolist() == [[2, 3], [12, 13], [22, 23]]
    assert torch.equal(first.flipped, mild.flipped)
    assert torch.equal(first.first_flip, mild.first_flip)
    assert first.flip_rate() == mild.flip_rate()
    last = mild.at(torch.tensor([3, 0, 1]))
    assert last.p.tolist() == pytest.approx([0.7, 0.9, 0.1])
    assert last.w.tolist() == [[6, 7], [8, 9], [18, 19]]
    assert last.flipped.tolist() == [True, False, False]
    early = mild.upto(1)
    assert early.at_first_flip().step.tolist() == early.step.tolist() == [1, 1, 1]


def test_a_search_that_stops_at_flips_is_at_its_first_flip():
    every, _, _ = run({0: 30.0, 3: -20.0}, images=12, update="sign", eta=0.4)
    some, _, _ = run({0: 30.0, 3: -20.0}, images=12, update="sign", eta=0.4, stop_when="flipped")
    assert some.flipped.any()
    flipped, first = some.flipped, every.at_first_flip()
    assert torch.equal(some.step[flipped], first.step[flipped])
    assert torch.allclose(some.w[flipped], first.w[flipped], atol=1e-5)
    assert not torch.equal(first.step, every.step)


@pytest.mark.parametrize("update", ["gradient", "sign", "adam"])
def test_images_that_leave_change_nothing_for_the_others(update):
    weights = {0: 30.0, 3: -20.0}
    chosen = {"update": update, "eta": 0.5, "beta": 0.3, "consistency": HOLD, "images": 20}
    every, all_of, _ = run(weights, epsilon=1.5, **chosen)
    some, fewer, _ = run(weights, epsilon=1.5, stop_when="flipped", **chosen)
    assert torch.equal(some.flipped_by, every.flipped_by)
    assert len(set(every.first_flip.tolist())) >= 3  # they leave one after another
    for i, end in enumerate(every.first_flip.tolist()):
        end = end if end >= 0 else 8
        assert torch.allclose(
            some.trajectory_w[i, : end + 1], every.trajectory_w[i, : end + 1], atol=1e-5
        )
        assert (some.trajectory_w[i, end:] == some.trajectory_w[i, end]).all()
        assert (some.trajectory_p[i, end:] == some.trajectory_p[i, end]).all()
    flips = every.first_flip[every.flipped]
    assert fewer.synthesized == all_of.synthesized - int((8 - flips).sum())


def test_a_search_ends_when_all_have_flipped_and_pairs_may_leave_too():
    found, generator, target = run({0: 300.0}, steps=50, stop_when="flipped")
    assert found.flipped.all()
    assert generator.synthesized < 6 * 20
    assert found.trajectory_p.shape == (6, 51)
    arguments = (generator, target, None, found.directions, found.styles)
    every = search(*arguments, settings(steps=20))
    generator.synthesized = 0
    some = search(*arguments, settings(steps=20, stop_when="flipped"))
    assert torch.equal(some.flipped, every.flipped)
    assert some.flipped.any()
    assert generator.synthesized < 6 + 6 * 3 * 21
    stays = ~every.flipped
    assert torch.allclose(some.trajectory_w[:, stays], every.trajectory_w[:, stays], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_is_a_memory_limit_only(batch):
    terms = {"beta": 0.3, "gamma": 0.2, "consistency": HOLD, "starts": (0.0, 1.0)}
    whole, generator, _ = run({0: 20.0, 3: -9.0}, **terms)
    parts, _, _ = run({0: 20.0, 3: -9.0}, batch=batch, **terms)
    assert torch.allclose(whole.trajectory_w, parts.trajectory_w, atol=1e-5)
    assert torch.allclose(whole.p, parts.p, atol=1e-5)
    assert generator.synthesized == 6 + 2 * 6 * 9  # the originals once


def test_the_better_start_is_kept():
    class Plateau(GridClassifier):
        def forward(self, images):
            return 60 * F.relu(cells(images)[:, 0] - 0.1) - 1

    generator = GridGenerator()
    found = multi_search(
        generator, Target(Plateau({})), None, along(generator, 0, 3),
        generator.style_mean.repeat(2, 1), settings(epsilon=9.0, starts=(-6.0, 6.0, 0.0)),
    )  # fmt: skip
    assert (found.trajectory_w[:, 0] == 6.0).all()
    assert found.flipped.all()


def test_probabilities_are_those_of_the_images():
    found, _, target = run({0: 20.0, 3: -9.0})
    with torch.no_grad():
        assert torch.allclose(target(found.originals(range(6))), found.p_original, atol=1e-6)
        assert torch.allclose(target(found.images(range(6))), found.p, atol=1e-6)
        at = torch.tensor([0, 3, 5])
        seen = target(found.images([4, 0, 2], at))
        assert torch.allclose(seen, found.trajectory_p[[4, 0, 2], at], atol=1e-6)
        frames, probabilities = found.path(1, frames=4)
        assert torch.allclose(target(frames), torch.tensor(probabilities), atol=1e-6)
    assert probabilities[-1] == pytest.approx(float(found.p[1]))


def test_nan_names_step_term_and_image_though_others_have_left():
    class Breaks(GridClassifier):
        def forward(self, images):
            logit = super().forward(images)
            return logit.masked_fill(cells(images)[:, 0] > 0.14, float("nan"))

    generator = GridGenerator()
    styles = generator.style_mean.repeat(3, 1)
    styles[:, 3] = torch.tensor([0.1, -10.0, 1.0])  # all but image 1 soon flip
    target = Target(Breaks({0: 20.0, 3: 8.0}))
    chosen = settings(steps=40, eta=0.3, epsilon=30.0, update="sign", stop_when="flipped")
    with pytest.raises(
        FloatingPointError, match=r"The target is NaN or infinite at step \d+ for image 1"
    ):
        multi_search(generator, target, None, along(generator, 0), styles, chosen)


def test_result_as_tables_files_and_figures(tmp_path):
    found, _, _ = run({0: 20.0, 3: -9.0}, seed=3)
    frame = found.to_frame()
    row = frame.iloc[2]
    assert row[prompt(3)] == pytest.approx(float(found.w[2, 1]))
    assert row.change == pytest.approx(abs(row.p - row.p_original))
    assert len(frame) == 6
    found.save(tmp_path)
    names = {"multi.csv", "flip_rates.csv", "multi.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (found.seed, found.settings["update"]) == (3, "gradient")
    (line,) = found.plot().axes[0].lines
    assert line.get_ydata().tolist() == found.rates()["flip_rate"].tolist()
    assert len(found.plot_pairs(pairs=4, columns=2).axes) == 8
    some = found.plot_pairs(columns=2, which=[4, 1], words=list("abcdef")).axes
    assert [axis.get_title() for axis in some] == ["", "e", "", "b"]
    corners = [axis.texts[0].get_text() for axis in some]
    assert corners[2:] == [f"{found.p_original[1]:.2f}", f"{found.p[1]:.2f}"]


def test_input_is_checked():
    with pytest.raises(InputError, match="update must be one of gradient, sign, adam"):
        settings(update="newton")
    with pytest.raises(InputError, match="stop_when"):
        settings(stop_when="bored")
    generator = GridGenerator()
    with pytest.raises(InputError, match=r"\(B, 16\)"):
        multi_search(
            generator, Target(GridClassifier({})), None, along(generator, 0), torch.zeros(2, 5)
        )
