"""Keypoints and parts as targets of ZOOM: Eq. 6, its analogue, and what counts as a change."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from task_standins import Shifter, painter, shifter
from visiondx.core.errors import InputError
from visiondx.core.losses import keypoint_loss, part_loss, target_loss
from visiondx.models.outputs import mean_iou, soft_argmax
from visiondx.models.target import Target
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.multi import multi_search
from visiondx.zoom.relevance import relevance_matrix
from visiondx.zoom.search import SearchSettings, search
from visiondx.zoom.sensitivity import Sensitivity
from visiondx.zoom.tasks import LIMITS, compare, crossed, original
from visiondx_worlds.marking.zoom.kept import judge_flips
from visiondx_worlds.marking.zoom.truth import true_movement, true_sensitivity, with_truth
from visiondx_worlds.worlds import faces
from zoom_standins import (
    NEUTRAL,
    SIDE,
    GridClassifier,
    GridEncoder,
    GridGenerator,
    GridWorld,
    along,
    cells,
    prompt,
)

PLAIN = {"steps": 6, "eta": 3.0, "epsilon": 4.0, "alpha": 1.0, "beta": 0.0, "starts": (-2.0, 2.0)}


def run(target, channels=(0, 3, 11), images=5, seed=0, find=search, **settings):
    generator = GridGenerator()
    styles = generator.sample_styles(images, seed)
    settings = SearchSettings(**{**PLAIN, **settings})
    found = find(generator, target, None, along(generator, *channels), styles, settings, None, seed)
    return found, generator


def test_equation_6_by_hand():
    points = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    random = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    assert keypoint_loss(points, random).tolist() == [(1 + 0 + 1 + 4) / 4]
    with pytest.raises(InputError, match="one shape"):
        keypoint_loss(points, random[:, :1])


def test_two_parts_at_one_pixel_are_equation_5():
    q = torch.tensor([0.9, 0.2])
    answer = torch.stack((1 - q, q), 1)[..., None, None]
    logit = torch.tensor([0.3, -1.2])
    logits = torch.stack((torch.zeros(2), logit), 1)[..., None, None]
    goal = (1 - answer) / (2 - 1)
    assert torch.allclose(part_loss(logits, goal), target_loss(logit, 1 - q))
    with pytest.raises(InputError, match="one shape"):
        part_loss(logits, goal[:, :1])


def test_the_goal_of_a_pixel_is_all_that_it_is_not():
    image = torch.full((1, 3, SIDE, SIDE), 0.5)
    q = painter({})(image)[0, :, 0, 0]  # softmax of 0, 0.02, -3
    soft, hard = (original(painter({}), image, h).goal[0, :, 0, 0] for h in (False, True))
    assert torch.allclose(soft, (1 - q) / 2)
    assert soft.sum() == pytest.approx(1)
    assert hard.tolist() == [0.5, 0.0, 0.5]


def test_random_points_are_drawn_around_the_originals_once_for_each_image():
    images = torch.rand(40, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    whole = original(shifter({0: 0.3}), images)
    part = original(shifter({0: 0.3}), images[30:], first=30)
    assert torch.equal(whole.noise[30:], part.noise)
    assert torch.equal(whole.noise, original(shifter({}), images).noise)
    assert whole.noise.std() == pytest.approx(1, abs=0.1)
    assert torch.equal(whole.index(torch.tensor([4, 2])).noise, whole.noise[[4, 2]])
    assert whole.index(torch.tensor([4, 2])).size.shape == (2,)
    # at the original, Eq. 6 in sizes of the face is the mean square of the noise
    loss = whole.loss(whole.output(images))
    assert torch.allclose(loss, whole.noise.square().mean((1, 2)), atol=1e-4)
    with pytest.raises(InputError, match="points have none"):
        original(shifter({}), images, hard=True)


@pytest.mark.parametrize(
    ("task", "hard"), [("keypoints", False), ("segmentation", False), ("segmentation", True)]
)
def test_gradient_equals_finite_differences(task, hard):
    """One step from w = 0.7 shows the gradient; the loss is written again in float64."""
    make = shifter if task == "keypoints" else painter
    target = make({0: 1.5, 3: -0.8, 1: 0.4})
    generator = GridGenerator()
    directions = along(generator, 0, 3)
    directions.delta_s[:, 1] = 0.8
    styles = generator.sample_styles(3, 5)
    settings = SearchSettings(
        steps=1, eta=1e-2, epsilon=30.0, alpha=2.0, beta=0.0, hard=hard, starts=(0.7,)
    )
    found = search(generator, target, None, directions, styles, settings)
    gradient = (found.trajectory_w[0] - found.trajectory_w[1]) / 1e-2  # (B, N)
    x = generator.synthesize(styles.double())
    if task == "keypoints":
        points = soft_argmax(target.module(x)).detach()
        size = (points.amax(1) - points.amin(1)).amax(1)[:, None, None]
        noise = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 3, 2)))
    else:
        q = target.module(x).softmax(1).detach()
        if hard:
            q = F.one_hot(q.argmax(1), 3).permute(0, 3, 1, 2).double()

    def loss(i, n, w):
        moved = styles[i : i + 1].double() + w * directions.delta_s[n].double()
        out = target.module(generator.synthesize(moved)).detach()
        if task == "keypoints":
            away = (soft_argmax(out)[0] - points[i]) / size[i] - noise[i]  # from p_kp of Eq. 6
            return float(2.0 * away.square().mean())
        return float(-2.0 * ((1 - q[i]) / 2 * out[0].log_softmax(0)).sum(0).mean())

    step = 1e-4
    expected = [
        [(loss(i, n, 0.7 + step) - loss(i, n, 0.7 - step)) / (2 * step) for n in range(2)]
        for i in range(3)
    ]
    assert torch.tensor(expected).abs().max() > 1e-3
    assert torch.allclose(gradient, torch.tensor(expected), rtol=2e-2, atol=2e-4)


def test_a_planted_shifter_is_found():
    target = shifter({0: 1.2, 3: 0.04})
    found, _ = run(target, starts=(-4.0, 4.0))
    assert found.task == "keypoints"
    assert not found.p_original.any()
    measured = Sensitivity.from_search(found)
    assert measured.rank[0] == prompt(0)
    assert measured.raw[0] > 5 * measured.raw[1]
    assert measured.raw[2] == pytest.approx(0, abs=1e-6)  # no point looks at cell 11
    # the kept change is the mean displacement of the three points, in widths of their box
    x, edited = found.originals(range(5)), found.images(range(5), 0)
    with torch.no_grad():
        points, moved = target.keypoints(x), target.keypoints(edited)
    away = (points - moved).norm(dim=2).mean(1)
    box = (points.amax(1) - points.amin(1)).amax(1)
    assert torch.allclose(found.change[:, 0], away / box, atol=1e-5)
    assert torch.equal(found.flipped, found.p >= LIMITS["keypoints"])
    assert found.flipped.any()
    assert not found.flipped.all()


def test_planted_parts_are_found():
    target = painter({0: 2.0, 3: 0.001})
    found, _ = run(target, images=8)
    measured = Sensitivity.from_search(found)
    assert measured.rank[0] == prompt(0)
    assert measured.raw[0] > 0
    assert measured.raw[2] == 0
    with torch.no_grad():
        x, edited = (
            target.parts(t).argmax(1) for t in (found.originals([1]), found.images([1], 0))
        )
    assert found.change[1, 0] == pytest.approx(1 - float(mean_iou(x, edited, 3)))


@pytest.mark.parametrize("make", [shifter, painter])
def test_batch_is_a_memory_limit_only(make):
    settings = {"channels": (0, 3), "images": 4, "steps": 4, "beta": 0.3}
    whole, _ = run(make({0: 0.6, 3: -0.3}), **settings)
    parts, _ = run(make({0: 0.6, 3: -0.3}), batch=3, **settings)
    assert torch.allclose(whole.trajectory_w, parts.trajectory_w, atol=1e-4)
    assert torch.allclose(whole.p, parts.p, atol=1e-5)


def test_all_weights_together():
    found, _ = run(shifter({0: 0.6, 3: 0.4}), find=multi_search, starts=(2.0,))
    assert (found.task, found.upto(2).task) == ("keypoints", "keypoints")
    assert torch.equal(found.flipped, found.p >= LIMITS["keypoints"])
    assert found.flip_rate().value == pytest.approx(found.flipped.float().mean().item())
    assert found.w[:, :2].abs().mean() > 10 * (found.w[:, 2] - 2).abs().mean()


def test_rows_that_moved_far_may_leave():
    settings = {"channels": (0,), "starts": (3.0,)}
    stay, _ = run(shifter({0: 2.0}), **settings)
    leave, _ = run(shifter({0: 2.0}), **settings, stop_when="flipped")
    gone = (stay.trajectory_p[0, :, 0] >= LIMITS["keypoints"]).nonzero().flatten()
    assert len(gone)
    row = int(gone[0])
    assert len(leave.trajectory_w[:, row, 0].unique()) == 1  # it left at the first step
    assert len(stay.trajectory_w[:, row, 0].unique()) > 1


def test_crossing_and_comparing():
    p, start = torch.tensor([0.05, 0.08, 0.6]), torch.zeros(3)
    assert crossed(p, start).tolist() == [False, False, True]
    assert crossed(p, start, "keypoints").tolist() == [False, True, True]
    images = torch.rand(2, 3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    images = images.transpose(1, 2).flatten(0, 1)
    target = Target(GridClassifier({0: 9.0}))
    before, after = compare(target, images[:2], images[2:])
    assert torch.equal(before, target(images[:2]))
    assert torch.equal(after, target(images[2:]))
    before, after = compare(shifter({0: 0.5}), images[:2], images[:2])
    assert before.tolist() == after.tolist() == [0, 0]


class Broken(Shifter):
    """NaN once cell 0 is brighter than a limit."""

    def forward(self, images):
        bright = cells(images)[:, 0] > 0.05
        return super().forward(images).masked_fill(bright[:, None, None, None], float("nan"))


def test_nan_stops_with_step_and_term():
    target = Target(Broken({0: 0.6}), "keypoints", ("a", "b", "c"))
    with pytest.raises(FloatingPointError, match="The target is NaN or infinite at step 0"):
        run(target, channels=(0,), starts=(4.0,))
    generator = GridGenerator()
    styles = generator.style_mean.repeat(4, 1)
    styles[2, 0] = 9.0
    with pytest.raises(FloatingPointError, match="before the search for image 2"):
        search(generator, target, None, along(generator, 0), styles, SearchSettings(steps=1))


def test_a_diagnosis_takes_a_detector(tmp_path):
    generator, encoder = GridGenerator(), GridEncoder()
    M = relevance_matrix(generator, encoder, 4, cache=None)
    target = shifter({0: 0.1, 3: 0.6})
    found = diagnose(
        target,
        [prompt(0), prompt(3), prompt(11)],
        NEUTRAL,
        generator,
        encoder,
        images=6,
        settings=SearchSettings(**PLAIN),
        threshold=0.7,
        M=M,
    )
    found = with_truth(found, GridWorld(), target, images=20)
    assert found.sensitivity.rank[0] == found.truth.rank[0] == prompt(3)
    found.save(tmp_path)
    assert len(found.counterfactuals(pairs=1)) == 3
    paths = found.result.plot_paths([(0, 1)], shifter({3: 0.6}), frames=3)
    assert paths.axes[0].get_title() == "0.00"
    with pytest.raises(InputError, match="about keypoints"):
        judge_flips(found.result, object(), "bright", None)


def test_truth_of_a_detector_is_what_the_renderer_moves():
    """Cell 0 goes from -0.5 to 0.5, so the first of three points moves by 0.2 to the right."""
    target = shifter({0: 0.2, 3: 0.0})
    truth = true_sensitivity(GridWorld(), target, ["bright", "dark"], n=9, seed=1, batch=4)
    # without, the first point is at 0.2: a box of 0.5 x 0.4
    assert np.allclose(truth.raw, [0.2 / 3 / 0.5, 0], atol=1e-3)
    assert truth.flipped[:, 0].all()
    assert not truth.flipped[:, 1].any()


def test_true_movement_is_what_a_perfect_target_would_show():
    found = true_movement(faces, "keypoints", ["hat", "smiling"], n=12, seed=3)
    assert (found.attributes, found.source) == (("hat", "smiling"), "drawing")
    assert found.raw[0] == 0  # a hat moves no point
    assert found.raw[1] > 0.005  # the corners of a mouth
    parts = true_movement(faces, "segmentation", ["hat", "lipstick"], n=12, seed=3)
    assert parts.raw[0] > 0.05
    assert parts.raw[1] < 0.01  # a colour
    with pytest.raises(InputError, match="binary"):
        true_movement(faces, "binary", ["hat"])


def test_other_tasks_are_refused():
    many = Target(nn.Identity().eval(), "multiclass", ("a", "b", "c"))
    with pytest.raises(InputError, match="this one is multiclass with 3 labels"):
        run(many)
