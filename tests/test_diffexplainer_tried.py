"""Every word tried by itself: losses by hand, shared pictures, resuming."""

import pytest
import torch
from torch import nn

from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.diffexplainer import tried as trying
from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.painting import noise_of
from visiondx.diffexplainer.tried import then_tried, tried
from visiondx.models.painter import Painter
from visiondx.models.target import Target

AMONG = ["a", "b", "c", "d", "dog"]
TEMPLATE = "z {t}"


class Brightness(nn.Module):
    """Two classes: dark and bright."""

    def __init__(self, gain: float = 20.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, images):
        light = self.gain * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-light, light], 1)


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    return lcm_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def words(painter) -> Words:
    return Words.of(painter, AMONG)


def aims(gain: float = 20.0, of: tuple[str, ...] = ("bright", "dark")) -> Objectives:
    return Objectives(Target(Brightness(gain).eval(), "multiclass", ["dark", "bright"]), of, 16)


def test_each_words_loss_is_that_of_its_own_pictures(painter, words) -> None:
    first, second = aims(), aims(5.0, ("dark",))
    found = tried(painter, TEMPLATE, words, [first, second], 3, seed=4)
    assert [each.shape for each in found] == [(2, 5), (1, 5)]
    noise = noise_of(painter, 3, 4)
    for at, word in enumerate(AMONG):
        condition = painter.encode(painter.tokens([f"z {word}"])).expand(3, -1, -1)
        with torch.no_grad():
            light = painter(condition, noise).mean((1, 2, 3)) - 0.5
        for row, sign in ((0, -1), (1, 1)):  # -log sigmoid of the difference of the logits
            by_hand = nn.functional.softplus(sign * 40 * light).mean()
            assert found[0][row, at].item() == pytest.approx(by_hand.item(), rel=1e-4)
        by_hand = nn.functional.softplus(10 * light).mean()
        assert found[1][0, at].item() == pytest.approx(by_hand.item(), rel=1e-4)
    few = tried(painter, TEMPLATE, words, [first], 3, seed=4, batch=3)
    torch.testing.assert_close(few[0], found[0], atol=1e-5, rtol=1e-4)


def test_killed_it_goes_on(painter, words, tmp_path, monkeypatch) -> None:
    kept, each = tmp_path / "kept", aims()
    whole = tried(painter, TEMPLATE, words, [each], 2, seed=4)[0]
    monkeypatch.setattr(trying, "SAVE_SECONDS", -1.0)
    painted, paint = [], trying.paint

    def dies(painter, prompt, soft, noise):
        painted.append(len(soft))
        if len(painted) == 2:
            raise KeyboardInterrupt
        return paint(painter, prompt, soft, noise)

    monkeypatch.setattr(trying, "paint", dies)
    with pytest.raises(KeyboardInterrupt):
        tried(painter, TEMPLATE, words, [each], 2, seed=4, batch=4, kept=kept)
    assert painted == [2, 2]
    resumed = tried(painter, TEMPLATE, words, [each], 2, seed=4, batch=4, kept=kept)[0]
    assert painted == [2, 2, 2, 1]  # the first two words were kept
    torch.testing.assert_close(resumed, whole, atol=1e-5, rtol=1e-4)
    again = tried(painter, TEMPLATE, words, [each], 2, seed=4, kept=kept)[0]
    assert painted == [2, 2, 2, 1]
    assert torch.equal(again, resumed)
    for other in ({"seed": 5}, {"noises": 3}, {"template": "{t}"}, {"aims": [aims(5.0)]}):
        given = {"template": TEMPLATE, "aims": [each], "noises": 2, "seed": 4} | other
        found = tried(painter, words=words, kept=kept, **given)[0]
        assert not torch.equal(found, whole)  # something else is tried anew
    assert len(list(kept.iterdir())) == 5


def test_what_cannot_be_tried(painter, words) -> None:
    with pytest.raises(InputError, match="0 times"):
        tried(painter, "dog", words, [aims()], 2)
    with pytest.raises(InputError, match="No aims"):
        tried(painter, TEMPLATE, words, [], 2)
    for noises in (0, 5):
        with pytest.raises(InputError, match=f"noises is {noises}"):
            tried(painter, TEMPLATE, words, [aims()], noises, batch=4)


def test_the_word_whose_pictures_have_no_loss_is_named(painter, words) -> None:
    class Blind(Brightness):
        def forward(self, images):
            return super().forward(images) * (torch.nan if len(images) == 2 else 1)

    target = Target(Blind().eval(), "multiclass", ["dark", "bright"])
    with pytest.raises(FloatingPointError, match="loss is NaN or infinite of its pictures for dog"):
        tried(painter, TEMPLATE, words, [Objectives(target, ["dark"], 16)], 2, batch=4)


def test_the_likeliest_words_in_the_order_of_their_own_losses() -> None:
    likelihood = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.0, 0.2, 0.1]])
    losses = torch.tensor([[5.0, 3.0, 1.0, 2.0], [9.0, 4.0, 6.0, 8.0]])  # of d, b, a, c
    found = then_tried(likelihood, ["a", "b", "c", "d"], losses, ["d", "b", "a", "c"], 2)
    # of the first aim b and d are tried, though the loss of a is less; of the second a and c
    assert found.argsort(1, descending=True).tolist() == [[1, 3, 2, 0], [0, 2, 3, 1]]
    assert found[0, [1, 3]].tolist() == [-3, -5]
    assert found[1, [0, 2]].tolist() == [-6, -8]
    for count in (0, 5):
        with pytest.raises(InputError, match=f"{count} words are to be tried"):
            then_tried(likelihood, AMONG[:4], losses, AMONG[:4], count)
    with pytest.raises(InputError, match="'b', 'd' were not tried"):
        then_tried(likelihood, ["a", "b", "c", "d"], losses[:, :2], ["a", "c"], 2)
