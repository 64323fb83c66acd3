import pytest
import torch
import torch.nn.functional as F
from pytorch_msssim import ssim

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.result import examples
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


def run(weights, channels=(0, 3, 11), images=5, consistency=None, seed=0, **settings):
    generator = GridGenerator()
    target = Target(GridClassifier(weights))
    styles = generator.sample_styles(images, seed)
    plain = {"steps": 8, "eta": 3.0, "epsilon": 4.0, "alpha": 1.0, "beta": 0.0, "gamma": 0.1}
    plain["starts"] = (0.0,)
    settings = SearchSettings(**{**plain, **settings})
    directions = along(generator, *channels)
    found = search(
        generator, target, GridEncoder(), directions, styles, settings, consistency, seed
    )
    return found, generator, target


def test_equation_3_by_hand():
    found, generator, _ = run({0: 20.0})
    x, edited = found.originals([2]), found.images([2], 0)
    expected = cells(x)[0].clone()
    expected[0] += 0.05 * float(found.w[2, 0] * generator.style_std[0])
    assert torch.allclose(cells(edited)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "consistency"),
    [
        (1.0, 0.0, 0.0, None),
        (0.0, 1.0, 0.0, None),
        (0.0, 0.0, 1.0, (prompt(1), NEUTRAL)),
        (2.0, 0.5, 0.25, (prompt(1), NEUTRAL)),
    ],
)
def test_gradient_equals_finite_differences(alpha, beta, gamma, consistency):
    """One step from w = 0.7 shows the gradient; the loss of Eq. 4 is written again in float64."""
    generator, encoder = GridGenerator(), GridEncoder()
    target = Target(GridClassifier({0: 20.0, 3: -5.0, 1: 2.0}))
    directions = along(generator, 0, 3)
    directions.delta_s[:, 1] = 0.8
    styles = generator.sample_styles(3, 5)
    settings = SearchSettings(
        steps=1, eta=1e-2, epsilon=30.0, alpha=alpha, beta=beta, gamma=gamma, starts=(0.7,)
    )
    found = search(generator, target, encoder, directions, styles, settings, consistency)
    gradient = (found.trajectory_w[0] - found.trajectory_w[1]) / 1e-2  # (B, N)

    x = generator.synthesize(styles.double())

    def loss(i, n, w):
        moved = styles[i : i + 1].double() + w * directions.delta_s[n].double()
        edited = generator.synthesize(moved)
        f, f_hat = (torch.sigmoid(target.module(image)) for image in (x[i : i + 1], edited))
        total = -alpha * ((1 - f) * f_hat.log() + f * (1 - f_hat).log())
        if beta:
            total = total + beta * (1 - ssim(edited, x[i : i + 1], data_range=1.0))
        if gamma:
            texts = encoder.embed_texts(list(consistency)).double()
            logits = [10 * encoder.embed_images(im) @ texts.T for im in (x[i : i + 1], edited)]
            total = total - gamma * (F.softmax(logits[0], 1) * F.log_softmax(logits[1], 1)).sum()
        return float(total.detach())

    step = 1e-4
    expected = [
        [(loss(i, n, 0.7 + step) - loss(i, n, 0.7 - step)) / (2 * step) for n in range(2)]
        for i in range(3)
    ]
    assert torch.allclose(gradient, torch.tensor(expected), rtol=2e-2, atol=3e-4)


def test_planted_direction_is_found_whichever_its_sign():
    for sign in (1.0, -1.0):
        found, _, _ = run({0: 20.0 * sign, 3: 0.5})
        change = found.change.mean(0)
        assert change[0] > 0.2
        assert change[0] > 5 * change[1]
        assert change[2] == 0  # the target does not see cell 11
        assert not found.trajectory_w[:, :, 2].any()
        down = found.p_original > 0.5  # a counterfactual lowers a high probability
        assert torch.equal(found.w[:, 0] * sign < 0, down)


def test_most_counterfactual_step_is_kept():
    found, _, _ = run({0: 20.0}, eta=60.0)  # steps so long that it swings
    moved = (found.trajectory_p - found.p_original[None, :, None]).abs()
    assert torch.equal(found.change, moved.amax(0))
    assert torch.equal(found.step, moved.argmax(0))
    row, column = torch.arange(5)[:, None], torch.arange(3)
    assert torch.equal(found.w, found.trajectory_w[found.step, row, column])
    assert (found.step[:, 0] < 8).any()
    assert found.trajectory_w.shape == (9, 5, 3)
    assert found.trajectory_w.abs().max() == 4.0  # the clamp


def test_probabilities_are_those_of_the_images():
    found, _, target = run({0: 20.0, 3: -9.0})
    with torch.no_grad():
        assert torch.allclose(target(found.originals(range(5))), found.p_original, atol=1e-6)
        for n in range(3):
            assert torch.allclose(target(found.images(range(5), n)), found.p[:, n], atol=1e-6)
        frames, probabilities = found.path(1, 0, frames=4)
        assert torch.allclose(target(frames), torch.tensor(probabilities), atol=1e-6)
    assert probabilities[0] == pytest.approx(float(found.p_original[1]))
    assert probabilities[-1] == pytest.approx(float(found.p[1, 0]))


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_batch_is_a_memory_limit_only(batch):
    settings = {"beta": 0.3, "gamma": 0.2, "consistency": (prompt(1), NEUTRAL), "starts": (0, 1.0)}
    whole, _, _ = run({0: 20.0, 3: -9.0}, **settings)
    parts, _, _ = run({0: 20.0, 3: -9.0}, batch=batch, **settings)
    assert torch.allclose(whole.trajectory_w, parts.trajectory_w, atol=1e-5)
    assert torch.allclose(whole.p, parts.p, atol=1e-5)


def test_originals_are_computed_once():
    found, generator, _ = run({0: 20.0}, steps=8, batch=6, update="adam")
    assert generator.synthesized == 5 + 5 * 3 * 9
    found.images([0], 0)
    assert generator.synthesized == 5 + 5 * 3 * 9 + 1


def test_several_starts_keep_the_better_one():
    """A target that is flat around the originals: only a start beyond the plateau sees a slope."""

    class Plateau(GridClassifier):
        def forward(self, images):
            return 60 * F.relu(cells(images)[:, 0] - 0.1) - 1

    generator = GridGenerator()
    styles = generator.style_mean.repeat(2, 1)
    found = [
        search(
            generator,
            Target(Plateau({})),
            None,
            along(generator, 0),
            styles,
            SearchSettings(steps=10, eta=2.0, epsilon=20.0, alpha=1, beta=0, starts=starts),
        )
        for starts in ((0.0,), (-6.0, 6.0))
    ]
    assert found[0].change.max() == 0
    assert found[1].change.min() > 0.3
    assert (found[1].trajectory_w[0] == 6.0).all()  # the trajectory of the start that was kept


def test_an_undecided_image_moves_only_towards_a_hard_label():
    generator = GridGenerator()
    styles = torch.zeros(1, 16)  # f(x) = 0.5
    for hard in (False, True):
        settings = SearchSettings(steps=3, eta=3.0, alpha=1, beta=0, hard=hard, starts=(0.0,))
        target = Target(GridClassifier({0: 20.0}))
        found = search(generator, target, None, along(generator, 0), styles, settings)
        assert (float(found.change) > 0.05) == hard


def test_structure_term_holds_the_image_back():
    free, _, _ = run({0: 20.0}, eta=1.0, steps=20)
    held, _, _ = run({0: 20.0}, eta=1.0, steps=20, beta=60.0)
    assert held.w[:, 0].abs().mean() < 0.8 * free.w[:, 0].abs().mean()


def test_attribute_term_holds_its_attribute():
    free, _, _ = run({0: 20.0}, channels=(0,))
    held, _, _ = run({0: 20.0}, channels=(0,), gamma=20.0, consistency=(prompt(0), NEUTRAL))
    assert held.w.abs().mean() < 0.8 * free.w.abs().mean()


class Breaks(GridClassifier):
    """NaN, forward or backward, once cell 0 is brighter than a limit."""

    def __init__(self, backward=False):
        super().__init__({0: 20.0})
        self.backward = backward

    def forward(self, images):
        bright = cells(images)[:, 0] > 0.14
        logit = super().forward(images) - 5
        if not self.backward:
            return logit.masked_fill(bright, float("nan"))
        out = logit.clone()
        out[bright] += (logit[bright] - logit[bright]).sqrt()  # zero, with an infinite derivative
        return out


@pytest.mark.parametrize(("backward", "term"), [(False, "target"), (True, "gradient")])
def test_nan_stops_with_step_and_term(backward, term):
    generator = GridGenerator()
    styles = generator.style_mean.repeat(3, 1)
    styles[1, 0] += 1.0  # the brightest gets there first
    settings = SearchSettings(steps=20, eta=0.8, epsilon=30.0, alpha=1, beta=0, starts=(0.0,))
    words = rf"The {term} is NaN or infinite at step [1-9]\d* for 'a grid with cell 0', image 1"
    with pytest.raises(FloatingPointError, match=words):
        search(generator, Target(Breaks(backward)), None, along(generator, 3, 0), styles, settings)


def test_nan_in_the_encoder_names_its_term_and_step(monkeypatch):
    embed, calls = GridEncoder.embed_images, []

    def breaks(self, images):
        calls.append(1)  # the originals, then step 0, then step 1
        return embed(self, images) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(GridEncoder, "embed_images", breaks)
    with pytest.raises(FloatingPointError, match="The attr loss is NaN or infinite at step 1"):
        run({0: 20.0}, consistency=(prompt(1), NEUTRAL))


def test_nan_in_an_original_names_the_image():
    generator = GridGenerator()
    styles = generator.style_mean.repeat(70, 1)
    styles[66, 2] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"The image is NaN .*before the search for image 66"
    ):
        search(generator, Target(GridClassifier({})), None, along(generator, 0), styles)


def test_parameters_are_left_as_they_were():
    found, generator, target = run({0: 20.0})
    for parameter in (generator.gain, target.module.weight):
        assert parameter.requires_grad
        assert parameter.grad is None
    assert not found.styles.requires_grad


def test_parameters_are_restored_after_an_error(monkeypatch):
    def fails(self, styles):
        assert not self.gain.requires_grad
        raise KeyError

    monkeypatch.setattr(GridGenerator, "synthesize", fails)
    generator = GridGenerator()
    with pytest.raises(KeyError):
        search(generator, Target(GridClassifier({})), None, along(generator, 0), torch.zeros(1, 16))
    assert generator.gain.requires_grad


def test_result_as_table_files_and_figure(tmp_path):
    found, _, _ = run({0: 20.0, 3: -9.0}, seed=3)
    frame = found.to_frame()
    assert len(frame) == 15
    row = frame[(frame.image == 2) & (frame.attribute == prompt(3))].iloc[0]
    assert row.w == pytest.approx(float(found.w[2, 1]))
    assert row.change == pytest.approx(abs(row.p - row.p_original))
    assert row.flipped == ((row.p >= 0.5) != (row.p_original >= 0.5))
    found.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"search.csv", "search.safetensors"}
    assert (found.seed, found.settings["steps"]) == (3, 8)
    assert len(found.plot(pairs=2).axes) == 12
    first, second = found.strongest(0, 2)
    assert found.change[first, 0] >= found.change[second, 0]


def test_examples_show_no_image_twice_the_strongest_first_and_one_at_random_last():
    change = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 3, 2])
    chosen = examples(change, 4, seed=5)
    assert list(chosen) == [1, 2, 0]  # by mean change
    shown = [image for row in chosen.values() for image in row]
    assert len(set(shown)) == len(shown) == 12
    ranked = {n: change[:, n].argsort(descending=True).tolist() for n in range(3)}
    taken = []
    for place in range(3):  # in turns, each the strongest that is left
        for n in (1, 2, 0):
            taken.append(next(i for i in ranked[n] if i not in taken))
            assert chosen[n][place] == taken[-1]
    assert examples(change, 4, seed=5) == chosen
    drawn = {examples(change, 4, seed)[1][3] for seed in range(20)}
    assert drawn == set(range(12)) - set(taken)
    few = examples(change[:5], 4)  # not enough for all: none twice in a row
    assert all(len(set(row)) == 4 for row in few.values())
    assert [len(row) for row in examples(change[:2], 4).values()] == [2, 2, 2]
    assert examples(change[:1], 4) == {n: [0] for n in examples(change[:1], 4)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"eta": 0.0}, "eta"),
        ({"alpha": -1.0}, "alpha"),
        ({"starts": ()}, "starts"),
        ({"starts": (99.0,)}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(InputError, match=words):
        SearchSettings(**settings)


def test_styles_and_prompts_are_checked():
    generator = GridGenerator()
    with pytest.raises(InputError, match=r"\(B, 16\)"):
        search(generator, Target(GridClassifier({})), None, along(generator, 0), torch.zeros(2, 5))
    with pytest.raises(InputError, match="two prompts"):
        run({0: 1.0}, consistency=("one",))


def test_growth_multiplies_alpha_at_every_step():
    """Without other terms a step is η α growth^t times the gradient of the target term."""
    grown, _, _ = run({0: 2.0}, channels=(0,), growth=3.0, eta=1e-4, epsilon=9.0, steps=3)
    plain, _, _ = run({0: 2.0}, channels=(0,), eta=1e-4, epsilon=9.0, steps=3)
    moves = [part.trajectory_w.diff(dim=0)[:, :, 0] for part in (grown, plain)]
    for step, factor in enumerate((1.0, 3.0, 9.0)):
        assert torch.allclose(moves[0][step], factor * moves[1][step], rtol=2e-2)
    for growth in (0.5, float("nan"), float("inf"), 100.0):
        with pytest.raises(InputError, match="growth"):
            SearchSettings(steps=200, growth=growth)
