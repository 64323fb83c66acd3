"""Textual inversion of all classes: its loss by hand, what moves, resumed runs, planted words."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from torch import nn

from painter_standins import pipeline, scheduler
from visiondx.core.errors import InputError
from visiondx.core.files import digest
from visiondx.core.seeds import step_seed
from visiondx.dataset_interfaces import inversion
from visiondx.dataset_interfaces.folders import by_class
from visiondx.dataset_interfaces.inversion import (
    TEMPLATES,
    Inversion,
    Lesson,
    denoising_loss,
    initial_tokens,
    learn_tokens,
)
from visiondx.dataset_interfaces.tokens import encode_prompts
from visiondx.models.painter import Painter
from visiondx.models.soft_words import soft_word
from visiondx.search.descent import Descent

SHORT = ("a <class>", "the <class> dog")
V = {"prediction_type": "v_prediction"}


def with_scheduler(painter: Painter, chosen: object) -> Painter:
    return Painter(painter.vae, painter.unet, painter.text_encoder, painter.tokenizer, chosen)


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    pipe = pipeline(tmp_path_factory.mktemp("painter"))
    return Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


@pytest.fixture(scope="module")
def images() -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return {name: torch.rand(3, 3, 16, 16, generator=source) for name in ("a", "b", "dog")}


def few(steps: int = 3, eta: float = 0.05, **changes: object) -> Inversion:
    chosen = {"templates": SHORT, "batch": 2, **changes}
    return Inversion(descent=Descent(steps, eta, "adam", decay=1e-2), **chosen)


def test_defaults_are_the_papers() -> None:
    descent = Inversion().descent
    assert (descent.steps, descent.eta, descent.update) == (3000, 5e-4, "adam")
    assert (descent.decay, descent.anneal) == (1e-2, False)
    assert (Inversion().vectors, Inversion().images) == (1, 1)
    assert len(set(TEMPLATES)) == 27


@pytest.mark.parametrize("kind", [{}, V])
def test_the_loss_by_hand(painter, images, kind) -> None:
    chosen = scheduler(DDIMScheduler, **kind)
    ours = with_scheduler(painter, chosen)
    lesson = Lesson.make(ours, by_class(images), few(images=2), 5, None)
    vectors = torch.randn(3, 1, 16)
    with torch.no_grad():
        found = lesson.losses(vectors[1:2], slice(1, 2), 7)
    assert found.shape == (1,)
    # class "b" draws for itself
    source = torch.Generator().manual_seed(step_seed(lesson.seeds[1], 7))
    image = torch.randint(3, 6, (2,), generator=source) - 3
    mirror = torch.randint(2, (2,), generator=source)
    template = torch.randint(2, (2,), generator=source)
    times = torch.randint(1000, (2,), generator=source)
    noise = torch.randn(2, 4, 8, 8, generator=source)
    losses = []
    with torch.no_grad():
        for k in range(2):
            shown = images["b"][image[k]][None]
            shown = shown.flip(3) if mirror[k] else shown
            z = painter.vae.encode(shown * 2 - 1).latent_dist.mean * 0.18
            z = z.half().float()
            alpha = chosen.alphas_cumprod[times[k]]
            noisy = alpha.sqrt() * z + (1 - alpha).sqrt() * noise[k]
            text = SHORT[template[k]].replace("<class>", "b")  # one letter, one token
            place = (2, 4)[template[k]]  # "the" is three
            condition = painter.encode(painter.tokens([text]), vectors[1], [place])
            made = painter.unet(noisy, times[k], condition).sample
            velocity = alpha.sqrt() * noise[k] - (1 - alpha).sqrt() * z
            losses.append((made - (velocity if kind else noise[k])).square().mean())
    torch.testing.assert_close(found[0], torch.stack(losses).mean(), rtol=1e-4, atol=0)


def test_a_word_is_the_same_alone_and_beside_others(painter, images) -> None:
    before = digest(**painter.state_dict())
    every = [learn_tokens(painter, images, few(batch=size), seed=3) for size in (1, 2, 7)]
    for other in every[1:]:
        torch.testing.assert_close(other.vectors, every[0].vectors, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.losses, every[0].losses, atol=1e-5, rtol=0)
    alone = learn_tokens(painter, {"b": images["b"]}, few(), seed=3)
    torch.testing.assert_close(alone.vectors, every[0].vectors[1:2], atol=1e-5, rtol=0)
    assert every[0].losses.shape == (3, 3)
    assert every[0].losses.isfinite().all()
    assert every[0].names == ("<a>", "<b>", "<dog>")
    another = learn_tokens(painter, images, few(), seed=4)
    assert (another.vectors - every[0].vectors).abs().amax((1, 2)).min() > 1e-3
    # nothing of the painter learned
    assert digest(**painter.state_dict()) == before
    assert all(p.grad is None and not p.requires_grad for p in painter.parameters())


class Killed(Exception):
    pass


def killed_after(painter: Painter, calls: int) -> Painter:
    """A copy whose UNet stops for good after so many calls."""
    copied = copy.deepcopy(painter)
    left = iter(range(calls))

    def count(*_: object) -> None:
        if next(left, None) is None:
            raise Killed

    copied.unet.register_forward_pre_hook(count)
    return copied


def no_encoding(painter: Painter) -> Painter:
    copied = copy.deepcopy(painter)

    def stop(*_: object) -> None:
        raise Killed

    copied.vae.encoder.register_forward_pre_hook(stop)
    return copied


def test_only_the_rows_of_a_batch_move_and_a_killed_run_goes_on(
    painter, images, tmp_path, monkeypatch
) -> None:
    settings = few(3, vectors=2)
    whole = learn_tokens(painter, images, settings, seed=1, kept=tmp_path / "whole")
    monkeypatch.setattr(inversion, "SAVE_SECONDS", 0.0)
    home = tmp_path / "killed"
    with pytest.raises(Killed):
        learn_tokens(killed_after(painter, 1), images, settings, seed=1, kept=home)
    (file,) = home.glob("tokens-*")
    held = inversion.Progress.read(file)
    assert held.done.tolist() == [1, 1, 0]  # two classes a batch
    assert held.losses[0].isfinite().tolist() == [True, True, False]
    start = inversion.soft_word(painter, "dog", 2)
    assert torch.equal(held.vectors[2], start)
    assert not held.moments[:, 2].any()
    assert held.moments[:, :2].abs().amax((2, 3)).min() > 0
    # no image is encoded again
    with pytest.raises(Killed):
        learn_tokens(killed_after(no_encoding(painter), 2), images, settings, seed=1, kept=home)
    assert inversion.Progress.read(file).done.tolist() == [2, 2, 1]
    resumed = learn_tokens(no_encoding(painter), images, settings, seed=1, kept=home)
    assert torch.equal(resumed.vectors, whole.vectors)
    assert torch.equal(resumed.losses, whole.losses)
    # one that is finished is read
    again = learn_tokens(killed_after(painter, 0), images, settings, seed=1, kept=home)
    assert torch.equal(again.vectors, whole.vectors)
    # and is no other's: of another seed
    with pytest.raises(Killed):
        learn_tokens(killed_after(painter, 0), images, settings, seed=2, kept=home)


def test_where_words_start_and_how_long_they_are(painter, images) -> None:
    still = few(1, eta=1e-9, vectors=2)
    table = painter.token_embeddings(painter.tokens(["dog a b"]))[0, 1:4]
    dog, a, b = table
    told = learn_tokens(painter, images, still, words={"a": "dog a", "b": "dog", "dog": "b a dog"})
    torch.testing.assert_close(told.vectors[0], torch.stack([dog, a]), atol=1e-5, rtol=0)
    torch.testing.assert_close(told.vectors[1], torch.stack([dog, dog]), atol=1e-5, rtol=0)
    means = torch.stack([(b + a) / 2, dog])  # tensor_split gives the first part one more
    torch.testing.assert_close(told.vectors[2], means, atol=1e-5, rtol=0)
    assert told.initialisers == ("dog a", "dog", "b a dog")
    broad = learn_tokens(painter, images, few(1, eta=1e-9), words="dog a")
    mean = ((dog + a) / 2).expand(3, 1, -1)
    torch.testing.assert_close(broad.vectors, mean, atol=1e-5, rtol=0)
    start = torch.stack([a, b, dog])[:, None]
    pinned = learn_tokens(painter, images, few(4, eta=0.3))
    torch.testing.assert_close(pinned.vectors.norm(dim=2), start.norm(dim=2), rtol=1e-5, atol=0)
    assert (pinned.vectors - start).norm(dim=2).min() > 0.5
    free = learn_tokens(painter, images, few(4, eta=0.3, pin_norm=False))
    assert (free.vectors.norm(dim=2) / start.norm(dim=2) - 1).abs().min() > 1e-3


def test_a_random_painter_says_an_image_better_with_its_word(painter, images) -> None:
    loud = copy.deepcopy(painter)
    for name, part in loud.unet.named_modules():
        if name.endswith("attn2"):  # where words come in; at random, what they say is hardly heard
            part.to_out[0].weight.mul_(60)
    settings = few(30, eta=0.2, images=2, batch=6)
    start = learn_tokens(loud, images, few(1, eta=1e-9))
    found = learn_tokens(loud, images, settings)
    before, after = (
        denoising_loss(loud, images, tokens, settings, seed=9, draws=8) for tokens in (start, found)
    )
    assert (after < before - 0.02).all(), (before, after)  # of the 0.1 above the noise's variance


class Planted(nn.Module):
    """The right answer for one image, if the prompt is the planted one's: further off, worse.

    It believes in the picture z0 + R (condition - that of the planted prompt).
    """

    def __init__(self, unet, latent: torch.Tensor, condition: torch.Tensor, kind: str) -> None:
        super().__init__()
        self.config, self.kind, self.device = unet.config, kind, torch.device("cpu")
        self.latent, self.planted = latent, condition.flatten(1)
        self.map = torch.randn(self.planted.shape[1], latent.numel()) / 16
        self.alphas = scheduler(DDIMScheduler).alphas_cumprod

    def forward(self, noisy, times, condition, return_dict=False):
        off = (condition.flatten(1) - self.planted) @ self.map
        z = self.latent + off.view(-1, *self.latent.shape[1:])
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noise = (noisy - alpha.sqrt() * z) / (1 - alpha).sqrt()
        if self.kind == "epsilon":
            return (noise,)
        return (alpha.sqrt() * noise - (1 - alpha).sqrt() * z,)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_planted_word_is_found(painter, kind, count) -> None:
    ours = with_scheduler(painter, scheduler(DDIMScheduler, prediction_type=kind))
    picture = torch.rand(1, 3, 16, 16)
    settings = few(
        150, eta=0.1, vectors=count, images=4, batch=4, flip=False, templates=("a <class>",)
    )
    same = {"dog": picture.expand(2, -1, -1, -1)}
    start = learn_tokens(ours, same, few(1, 1e-9, vectors=count, flip=False))
    word = torch.randn(1, count, 16)
    word *= start.vectors.norm(dim=2, keepdim=True) / word.norm(dim=2, keepdim=True)
    planted = replace(start, vectors=word)
    condition = encode_prompts(ours, ["a <dog>"], planted)
    latent = ours.latents(picture).half().float()
    ours.unet = Planted(ours.unet, latent, condition, kind)
    found = learn_tokens(ours, same, settings)
    losses = [
        float(denoising_loss(ours, same, tokens, settings, seed=1))
        for tokens in (planted, start, found)
    ]
    assert losses[0] < 1e-6  # the target of this kind of prediction is met
    assert losses[2] < 0.1 * losses[1]
    off = [
        (encode_prompts(ours, ["a <dog>"], tokens) - condition).norm() for tokens in (start, found)
    ]
    assert off[1] < 0.3 * off[0]


def test_painters_that_teach_no_word(painter, images, tmp_path) -> None:
    lcm = with_scheduler(painter, scheduler(LCMScheduler))
    pipe = pipeline(tmp_path, told=6)
    told = Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)
    for student in (lcm, told):
        with pytest.raises(InputError, match=r"distilled .* with its teacher"):
            learn_tokens(student, images, few())
    sample = with_scheduler(painter, scheduler(DDIMScheduler, prediction_type="sample"))
    with pytest.raises(InputError, match="predicts 'sample'"):
        learn_tokens(sample, images, few())
    broken = copy.deepcopy(painter)
    broken.unet.conv_out.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="The loss of class 'a' became nan at step 0"):
        learn_tokens(broken, images, few())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": {"A b": 2, "a_b": 2}}, "'A b' and 'a_b' have the same token <a-b>"),
        ({"words": {"a": "dog"}}, "Class 'b' has no description"),
        ({"words": ""}, "The word '' has no token"),
        ({"side": 32}, "are 32 pixels wide and the painter paints 16"),
        ({"settings": {"templates": TEMPLATES}}, "needs .* and the painter reads 12"),
        ({"settings": {"templates": ("a dog",)}}, "'a dog' must hold <class> once"),
        ({"settings": {"templates": "a <class>"}}, "must be a list"),
        ({"settings": {"images": 3}}, "images is 3 and batch 2"),
        ({"settings": {"vectors": 0}}, "vectors is 0"),
    ],
)
def test_bad_questions(painter, given, said) -> None:
    side = given.get("side", 16)
    counts = given.get("images", {"a": 2, "b": 2})
    images = {name: torch.zeros(count, 3, side, side) for name, count in counts.items()}
    with pytest.raises(InputError, match=said):
        learn_tokens(painter, images, few(**given.get("settings", {})), words=given.get("words"))


def test_losses_of_other_classes(painter, images) -> None:
    tokens = learn_tokens(painter, images, few(1))
    with pytest.raises(InputError, match=r"1 vectors of a, b, dog, .* of a, b and"):
        denoising_loss(painter, {k: images[k] for k in ("a", "b")}, tokens, few())


def test_initial_tokens_are_where_learning_starts(painter, images) -> None:
    begun = initial_tokens(painter, ("a", "b", "dog"), "dog", 2)
    word = soft_word(painter, "dog", 2)
    assert torch.equal(begun.vectors, torch.stack([word] * 3))
    assert (begun.names, begun.initialisers) == (("<a>", "<b>", "<dog>"), ("dog",) * 3)
    settings = few(1, 1e-12, vectors=2)
    learned = learn_tokens(painter, images, settings, words="dog")
    assert torch.allclose(learned.vectors, begun.vectors, atol=1e-6)
    lost = [denoising_loss(painter, images, each, settings) for each in (begun, learned)]
    assert torch.allclose(*lost, atol=1e-5)
    with pytest.raises(InputError, match="have the same token <dog>"):
        initial_tokens(painter, ("dog", "Dog"))
