"""Prompts searched through a painter: templates, one batch, held-out choice, resuming."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from painter_standins import CONTEXT, lcm_painter
from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.diffexplainer import kept as keeping
from visiondx.diffexplainer.explain import (
    HELD,
    PromptObjective,
    Search,
    Settings,
    as_words,
    search,
)
from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.painting import noise_of, paint, painted
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.diffexplainer.starts import best_words
from visiondx.diffexplainer.tried import tried
from visiondx.diffexplainer.ways import Drawn, Free, Nearest
from visiondx.models.painter import Painter
from visiondx.models.target import Target
from visiondx.search.descent import Descent

QUICK = Settings(starts=2, tried=0, noises=2, held=3, batch=4, descent=Descent(3, 0.3, "adam"))


class Brightness(nn.Module):
    """Two classes: dark and bright."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, images):
        light = 20 * (images.mean((1, 2, 3)) - 0.5 + self.offset)
        return torch.stack([-light, light], 1)


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    return lcm_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(Brightness().eval(), "multiclass", ["dark", "bright"])


def test_a_template_is_the_prompt_around_the_searched_tokens(painter) -> None:
    prompt = SoftPrompt.parse(painter, "a dog {t} b", tokens=2)
    plain = painter.tokens(["a dog b"])[0]
    a, dog, b = plain[1], plain[2], plain[3]
    ids = prompt.ids.tolist()
    assert prompt.places == (3, 4)
    assert ids[:3] == [plain[0], a, dog]
    assert ids[5:7] == [b, plain[4]]
    assert len(ids) == CONTEXT
    # a word in the searched places is the prompt with that word
    word = prompt.word(painter, "a b")
    made = prompt.encode(painter, word[None])
    assert torch.equal(made, painter.encode(painter.tokens(["a dog a b b"])))
    assert torch.equal(prompt.word(painter, "b"), word[[1, 1]])  # repeated
    long = SoftPrompt.parse(painter, "{t}").word(painter, "a b")
    torch.testing.assert_close(long, word.mean(0, keepdim=True))


@pytest.mark.parametrize(
    ("template", "tokens", "message"),
    [
        ("a dog", 1, "0 times"),
        ("{t} and {t}", 1, "2 times"),
        ("a {t}", 0, "tokens is 0"),
        ("a {t}", CONTEXT, f"reads {CONTEXT}"),
    ],
)
def test_templates_that_are_none(painter, template, tokens, message) -> None:
    with pytest.raises(InputError, match=message):
        SoftPrompt.parse(painter, template, tokens)


def test_starts_are_words_of_the_vocabulary(painter) -> None:
    words = Words.of(painter)
    drawn = SoftPrompt.parse(painter, "{t}", tokens=2).start(painter, 200, seed=0)
    assert drawn.shape == (200, 2, words.matrix.shape[1])
    same = (drawn[:, :, None] == words.matrix).all(-1)
    assert (same.sum(-1) == 1).all()
    assert same.any(0).all()  # each is drawn in each place


def test_a_search_makes_pictures_that_the_target_wants(painter, target) -> None:
    settings = replace(QUICK, descent=Descent(12, 0.3, "adam"))
    found = search(painter, Objectives(target, ["bright", "dark"], 16), settings, seed=1)
    assert found.soft.shape == (2, 2, 1, 16)
    assert found.path.shape == (13, 2, 2)
    assert found.path.isfinite().all()
    assert found.scores is found.likelihood is None
    seeds = [100, 101, 102]
    images = found.images(painter, seeds)
    assert images.shape == (2, 3, 3, 16, 16)
    bright, dark = images.mean((1, 2, 3, 4))
    start = paint(painter, found.prompt, found.prompt.start(painter, 1, 5), painter.noise(seeds))
    assert dark < start.mean() < bright
    best = found.losses.min(1).values
    assert torch.equal(found.losses.gather(1, found.best[:, None])[:, 0], best)
    again = Objectives(target, ["bright", "dark"], 16)(
        paint(painter, found.prompt, found.tokens, noise_of(painter, 3, step_seed(1, HELD)))
    )[0].mean(1)
    torch.testing.assert_close(again, best, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.spread, found.losses.std(1))


def test_a_search_is_watched_and_may_be_stopped(painter, target) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    whole = search(painter, aims, QUICK, seed=1)
    run = Search(painter, aims, QUICK, seed=1)
    seen = [run.tokens]
    for rows in run.steps():
        assert rows == 2  # a batch of four pictures, two a row
        seen.append(run.tokens)
    assert run.made == run.total == 16
    assert torch.equal(seen[0][1], seen[4][1])  # the second part had not begun
    assert torch.equal(seen[4][0], whole.soft[0])
    assert torch.equal(run.found().losses, whole.losses)
    assert torch.equal(run.found().path, whole.path)
    two = replace(QUICK, batch=8, descent=replace(QUICK.descent, steps=2))
    short = search(painter, aims, two, seed=1)
    run = Search(painter, aims, replace(QUICK, batch=8), seed=1)
    steps = run.steps()
    for _ in range(3):  # the start, and two
        next(steps)
    assert not any(p.requires_grad for p in target.parameters())
    steps.close()
    assert all(p.requires_grad for p in target.parameters())
    found = run.found()
    assert torch.equal(found.soft, short.soft)
    assert torch.equal(found.losses, short.losses)
    assert torch.equal(found.path[:3], short.path)
    assert found.path[3:].isnan().all()


def test_rows_do_not_touch_one_another(painter, target) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    both = search(painter, aims, QUICK, seed=1)
    alone = search(painter, aims.index(torch.tensor([1])), QUICK, seed=1)
    torch.testing.assert_close(both.soft[1:], alone.soft, atol=1e-4, rtol=1e-3)
    wide = search(painter, aims, replace(QUICK, batch=64), seed=1)
    torch.testing.assert_close(both.soft, wide.soft, atol=1e-4, rtol=1e-3)


def test_noise_is_fresh_in_every_step_and_the_same_for_all_rows(painter, target) -> None:
    prompt = SoftPrompt.parse(painter, "{t}")
    aims = Objectives(target, ["bright", "bright"], 16)
    made = painter, prompt, Free(), aims, torch.zeros(2), QUICK
    objective = PromptObjective(*made, seed=3)
    first = objective.noise.start
    soft = prompt.start(painter, 1, 0).repeat(2, 1, 1)
    one, two = objective.observe(soft)["loss"]
    assert one.item() == pytest.approx(two.item(), rel=1e-5)
    objective.at(1)
    assert not torch.equal(objective.noise.start, first)
    objective.at(0)
    assert torch.equal(objective.noise.start, first)
    assert not torch.equal(PromptObjective(*made, seed=4).noise.start, first)


def test_a_first_start_may_be_a_word(painter, target) -> None:
    aims = Objectives(target, ["bright"], 16)
    settings = replace(QUICK, descent=Descent(1, 1e-9, "adam"))
    found = search(painter, aims, settings, Free("dog"), seed=1)
    word = found.prompt.word(painter, "dog")
    torch.testing.assert_close(found.soft[0, 0], word, atol=1e-6, rtol=0)
    assert not torch.allclose(found.soft[0, 1], word)
    aims = Objectives(target, ["bright", "dark"], 16)
    found = search(painter, aims, settings, Free(["a", "dog"]), seed=1)
    words = [found.prompt.word(painter, each) for each in ("a", "dog")]
    torch.testing.assert_close(found.soft[:, 0], torch.stack(words), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.soft[0, 1], found.soft[1, 1], atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="3 words were given to begin at for 2"):
        search(painter, aims, settings, Free(["a", "dog", "b"]), seed=1)


def test_of_the_starts_some_may_be_taken_alone(painter, target) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    among = Words.of(painter, ["a", "b", "dog"])
    found = search(painter, aims, QUICK, Drawn(among), seed=1)
    second = found.only(1)
    assert torch.equal(second.tokens, found.soft[:, 1])
    assert second.words == [[row[1]] for row in found.words]
    assert torch.equal(second.losses, found.losses[:, 1:])
    assert torch.equal(second.path, found.path[:, :, 1:])
    turned = found.only(1, 0)
    assert torch.equal(turned.tokens, found.tokens)
    assert torch.equal(turned.best, 1 - found.best)
    panels = found.plot(["a word", "noise"]).axes
    assert [panel.get_title() for panel in panels] == ["bright", "dark"]
    drawn = [[line.get_ydata() for line in panel.lines] for panel in panels]
    assert torch.equal(torch.tensor(drawn), found.path.permute(1, 2, 0))
    for wrong in ((), (2,), (-1,)):
        with pytest.raises(InputError, match="of 2: choose"):
            found.only(*wrong)


def test_a_killed_search_goes_on_to_the_same_result(painter, target, tmp_path, monkeypatch) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    whole = search(painter, aims, QUICK, seed=1)
    monkeypatch.setattr(keeping, "SAVE_SECONDS", 0.0)
    note, seen = keeping.Kept.note, []

    def dies(self, *at):
        note(self, *at)
        seen.append(at)
        if len(seen) == 6:  # in the second part, at its second step
            raise KeyboardInterrupt

    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(keeping.Kept, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            search(painter, aims, QUICK, seed=1, kept=kept)
    resumed = search(painter, aims, QUICK, seed=1, kept=kept)
    assert torch.equal(resumed.soft, whole.soft)
    assert torch.equal(resumed.path, whole.path)
    assert torch.equal(resumed.losses, whole.losses)
    brighter = Target(Brightness(offset=0.1).eval(), "multiclass", ["dark", "bright"])
    others = [
        (aims, QUICK, 2),
        (aims, replace(QUICK, held=5), 1),
        (Objectives(brighter, ["bright", "dark"], 16), QUICK, 1),
    ]
    for other, settings, seed in others:
        found = search(painter, other, settings, seed=seed, kept=kept)
        assert not torch.equal(found.losses, whole.losses)  # another search is begun anew
    assert len(list(kept.iterdir())) == 4
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="is a file"):
        search(painter, aims, QUICK, seed=1, kept=file)


def test_impossible_settings(painter) -> None:
    with pytest.raises(InputError, match="held is 0"):
        replace(QUICK, held=0)
    with pytest.raises(InputError, match="noises is 9 and batch 4"):
        replace(QUICK, noises=9)
    with pytest.raises(InputError, match="train mode"):
        Objectives(Target(Brightness(), "multiclass", ["dark", "bright"]), ["dark"], 16)


def test_pictures_do_not_depend_on_the_batch_that_they_are_painted_in(painter) -> None:
    prompt = SoftPrompt.parse(painter, "{t}")
    soft, noise = prompt.start(painter, 3, 0), painter.noise([1, 2])
    whole = paint(painter, prompt, soft, noise)
    for batch in (1, 4, 64):
        made = painted(painter, prompt, soft, noise, batch)
        torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)


def test_nan_on_held_noise_is_no_best_start(painter) -> None:
    class Fails(Brightness):
        def forward(self, images):
            made = super().forward(images)
            return made * torch.nan if len(images) == 6 else made  # as many as are held

    target = Target(Fails().eval(), "multiclass", ["dark", "bright"])
    settings = replace(QUICK, held=3, batch=6, noises=1, descent=Descent(1, 0.1, "adam"))
    with pytest.raises(FloatingPointError, match=r"held noise is NaN.*bright"):
        search(painter, Objectives(target, ["bright"], 16), settings, seed=1)


@pytest.mark.parametrize("kind", [Drawn, Nearest])
def test_words_are_searched_and_painted_with(painter, target, kind) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    words = Words.of(painter, ["a", "b", "c", "d", "e", "dog"])
    settings = replace(QUICK, starts=3, descent=Descent(8, 0.5, "adam"))
    found = search(painter, aims, settings, kind(words), seed=1)
    assert [len(starts) for starts in found.words] == [3, 3]
    for e, starts in enumerate(found.words):
        for s, (word,) in enumerate(starts):
            assert word in words.texts
            assert torch.equal(found.soft[e, s], words.matrix[[words.texts.index(word)]])
    assert len({word for starts in found.words for (word,) in starts}) > 1
    # what speaks for the words agrees with the choice, and is averaged over the starts
    assert found.scores.shape == (2, 3, 1, 6)
    assert [words.read(row) for row in found.scores] == found.words
    for e in range(2):
        torch.testing.assert_close(found.likelihood[e], sum(found.scores[e, :, 0]) / 3)
    assert torch.equal(found.only(2).likelihood, found.scores[:, 2, 0])
    if kind is Drawn:
        torch.testing.assert_close(found.likelihood.sum(1), torch.ones(2))
    # the words that it comes to are better than the average word
    mean = torch.stack(
        [
            aims(paint(painter, found.prompt, row.expand(2, 1, -1), painter.noise([7, 8])))[0]
            for row in words.matrix[:, None]
        ]
    ).mean((0, 2))
    ours = aims(paint(painter, found.prompt, found.tokens, painter.noise([7, 8])))[0].mean(1)
    assert (ours < mean).all()


def test_free_tokens_are_read_as_the_nearest_words(painter, target) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    words = Words.of(painter, ["a", "b", "c", "dog"])
    free = search(painter, aims, replace(QUICK, tokens=2), seed=1)
    found = as_words(painter, aims, free, words)
    cosine = torch.nn.functional.cosine_similarity(free.soft[..., None, :], words.matrix, dim=-1)
    torch.testing.assert_close(found.scores, cosine)
    nearest = cosine.argmax(-1)  # (2, 2, 2)
    assert found.words == [[[words.texts[w] for w in row] for row in e] for e in nearest.tolist()]
    assert torch.equal(found.soft, words.matrix[nearest])
    assert torch.equal(found.path, free.path)
    noise = noise_of(painter, 3, step_seed(1, HELD))
    with torch.no_grad():
        images = [paint(painter, found.prompt, starts, noise) for starts in found.soft]
    for e, own in enumerate(images):  # both starts of one aim
        by_hand = aims.index(torch.tensor([e, e]))(own)[0].mean(1)
        torch.testing.assert_close(found.losses[e], by_hand, atol=1e-5, rtol=1e-4)
    assert not torch.equal(found.losses, free.losses)


def test_the_words_that_please_most_are_begun_at(painter, target) -> None:
    aims = Objectives(target, ["bright", "dark"], 16)
    words = Words.of(painter)
    assert len(words) > 3
    two = best_words(painter, "{t}", aims, 2, 99, 3, without=[[], [words.texts[0]]], seed=5)
    losses = tried(painter, "{t}", words, [aims], 3, seed=5)[0]
    bright = [words.texts[w] for w in losses[0].argsort().tolist()]
    dark = [words.texts[w] for w in losses[1].argsort().tolist()]
    dark.remove(words.texts[0])  # it begins there anyway
    assert two == [bright[:2], dark[:2]]
    few = words.some(3, seed=1)
    assert len(few) == 3
    assert {*few.texts} < {*words.texts}
    at = [words.texts.index(text) for text in few.texts]
    assert torch.equal(few.matrix, words.matrix[at])
    assert words.some(3, seed=2).texts != few.texts

    settings = replace(QUICK, starts=3, tried=99, descent=Descent(1, 1e-9, "adam"))
    begun = Search(painter, aims, settings, Free(["dog", None]), seed=1)
    places = [[begun.prompt.word(painter, w) for w in row] for row in begun.way.given(2)]
    assert begun.way.given(2)[0][0] == "dog"
    assert "dog" not in begun.way.given(2)[0][1:]
    assert torch.equal(begun.tokens[0], torch.stack(places[0][:3]))
    drawn = Search(painter, aims, replace(settings, tried=0), Free(["dog", None]), seed=1)
    assert drawn.way.given(2) == [("dog",), ()]
    tries = [Search(painter, aims, replace(settings, tried=t), seed=1) for t in (0, 99)]
    with torch.no_grad():
        first = [run.found().losses.min(1).values for run in tries]
    assert (first[1] <= first[0] + 1e-6).all()
    with pytest.raises(InputError, match="tried is -1"):
        replace(QUICK, tried=-1)
