"""Black boxes, sentences that the world can draw, and the truth about both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx_worlds.marking.llm2loss.black_box import (
    SceneClasses,
    draw_examples,
    example_losses,
    load_black_boxes,
    split_examples,
)
from visiondx_worlds.marking.llm2loss.true_bias import TrueBias, claim_wins, true_bias
from visiondx_worlds.marking.llm2loss.truth import (
    Sentence,
    can_be,
    draw_pairs,
    mean_losses,
    true_losses,
)
from visiondx_worlds.worlds import faces, scenes
from visiondx_worlds.worlds.people import People


class Brightness(nn.Module):
    """Logits (B, K): bright pictures are surely of class 0."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        logits = images.new_zeros(len(images), self.classes)
        logits[:, 0] = images.mean((1, 2, 3)) * 5
        return logits


def box(classes):
    return Target(Brightness(len(classes)).eval(), "multiclass", classes)


SOURCES = {"faces": People.load(), "scenes": SceneClasses()}


def test_losses_are_the_cross_entropy_of_the_answers():
    source = SOURCES["scenes"]
    examples = draw_examples(source, 12, 3)
    logits = box(source.classes).logits(examples.pictures()).double()
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -p[torch.arange(12), examples.answers].log()
    found = example_losses(box(source.classes), examples, batch=5)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert torch.equal(examples.answers, examples.attributes["class"].long())


def test_a_black_box_with_too_few_classes_is_refused():
    examples = draw_examples(SOURCES["scenes"], 40, 0)
    with pytest.raises(InputError, match="2 classes"):
        example_losses(box(("a", "b")), examples)


def test_splits_are_different_draws_and_repeat():
    source = SOURCES["faces"]
    one = split_examples(source, 6, 4, 0)
    two = split_examples(source, 6, 4, 0)
    assert [len(part) for part in one.values()] == [6, 4]
    assert torch.equal(one["test"].images, two["test"].images)
    scale = [set(part.attributes["scale"].tolist()) for part in one.values()]
    trained = set(source.training(200, 0).attributes["scale"].tolist())
    assert not scale[0] & scale[1]
    assert not (scale[0] | scale[1]) & trained


@pytest.mark.parametrize("world", SOURCES)
@pytest.mark.parametrize("heldout", [False, True])
def test_pairs_are_distinct_and_come_true(world, heldout):
    source = SOURCES[world]
    pairs = draw_pairs(source, 12, 4, heldout)
    assert pairs == draw_pairs(source, 12, 4, heldout)
    assert len({(a.text, b.text) for a, b in pairs}) == 12
    for pair in pairs:
        for sentence in pair:
            attributes, _ = source.sample(20, 9, sentence.given)
            labels = source.world.labels(attributes)
            for name, value in sentence.given.items():
                assert (labels[:, source.world.binary.index(name)] == value).all(), sentence
        a, b = (dict(sentence.given) for sentence in pair)
        assert a != b
        changed = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
        assert 1 <= len(changed) <= 2


def test_no_pair_is_asked_for():
    with pytest.raises(InputError, match="0 pairs"):
        draw_pairs(SOURCES["faces"], 0, 0)


def test_what_excludes_itself_cannot_be():
    assert can_be(SOURCES["faces"], {"bald": True, "hat": True})
    assert not can_be(SOURCES["faces"], {"bald": True, "bangs": True})
    assert not can_be(SOURCES["scenes"], {"grass": True, "beach": True})


@pytest.mark.parametrize("heldout", [False, True])
def test_a_sentence_says_each_attribute_once(heldout):
    text = faces.grammar.sentence({"hat": True, "beard": False}, 0, heldout)
    assert text == faces.grammar.sentence({"hat": True, "beard": False}, 0, heldout)
    assert sum(word in text for word in ("hat", "cap")) == 1
    words = faces.grammar.heldout["phrases"] if heldout else faces.grammar.words["attributes"]
    denials = words["beard"]["absent"]
    assert any(phrase in text for phrase in (denials if heldout else denials["with"]))
    text = scenes.grammar.sentence({"dog": True, "snow": True, "oil painting": True}, 1, heldout)
    assert "something" not in text
    assert "snow" in text
    assert any(word in text for word in ("oil", "painting", "painted"))


def test_a_sentence_that_no_grammar_has():
    with pytest.raises(InputError, match="one class"):
        scenes.grammar.sentence({"dog": True, "cat": True}, 0)
    with pytest.raises(InputError, match="one state"):
        scenes.grammar.sentence({"harness": False}, 0)


def test_truth_of_a_sentence_is_the_mean_loss_of_what_it_says():
    source = SOURCES["scenes"]
    targets = {"box": box(source.classes)}
    night, day = Sentence("at night", {"night": True}), Sentence("by day", {"night": False})
    losses = true_losses(source, targets, [night, day, night], 8, 5)
    assert losses.shape == (1, 3, 8)
    assert torch.equal(losses[:, 0], losses[:, 2])
    attributes, answers = source.sample(8, 5, {"night": True})
    logits = targets["box"].logits(scenes.render(attributes))
    expected = nn.functional.cross_entropy(logits, answers, reduction="none")
    assert torch.allclose(losses[0, 0], expected, atol=2e-2)  # pictures are kept as bytes
    means = mean_losses(losses)
    assert means[0].value == pytest.approx(losses[0, 0].mean().item(), abs=1e-6)
    assert means[0].low <= means[0].value <= means[0].high


def test_sentences_that_cannot_be_drawn_are_refused():
    source = SOURCES["faces"]
    with pytest.raises(InputError, match="No image can show"):
        true_losses(source, {}, [Sentence("x", {"bald": True, "bangs": True})], 4, 0)
    with pytest.raises(InputError, match="No sentence"):
        true_losses(source, {}, [], 4, 0)


def test_claims_won_by_hand():
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 1.0]])
    wins = claim_wins(scores, torch.tensor([0, 2]))
    # image 0 claims 3.0 against {1, 2} and {0, 1}; image 1 claims 1.0 against {1, 2} and {0, 1}
    assert torch.allclose(wins, torch.tensor([[1.0, 1.0], [0.25, 0.75]]))


def planted(n=60, classes=7):
    """Scores that are right without attribute 0 and noise with it."""
    source = torch.Generator().manual_seed(0)
    labels = torch.rand(n, 2, generator=source) < 0.4
    answers = torch.randint(classes, (n,), generator=source)
    scores = torch.randn(n, classes, generator=source)
    scores[torch.arange(n), answers] += torch.where(labels[:, 0], 0.0, 4.0)
    return labels, answers, scores.log_softmax(1)


def test_auroc_is_that_of_all_claims_within_the_group():
    labels, answers, scores = planted()
    losses = -scores.gather(1, answers[:, None]).T
    bias = TrueBias(("a", "b"), labels, losses, claim_wins(scores, answers)[None])
    true = nn.functional.one_hot(answers, 7).bool().numpy()
    for index in range(2):
        for side, group in enumerate((labels[:, index], ~labels[:, index])):
            rows = group.numpy()
            expected = roc_auc_score(true[rows].ravel(), scores.numpy()[rows].ravel())
            assert bias.auroc()[0, index, side].item() == pytest.approx(expected, abs=1e-5)
            mean = losses[0][group].mean().item()
            assert bias.loss()[0, index, side].item() == pytest.approx(mean, abs=1e-5)
    for by in ("auroc", "loss"):
        assert bias.rmm(by)[0, 0] > 2 * bias.rmm(by)[0, 1]
    with pytest.raises(InputError, match="auroc or loss"):
        bias.rmm("accuracy")


def test_a_weight_counts_as_a_copy():
    labels, answers, scores = planted(20)
    weights = torch.arange(20) % 3
    rows = torch.arange(20).repeat_interleave(weights)
    losses = -scores.gather(1, answers[:, None]).T
    bias = TrueBias(("a", "b"), labels, losses, claim_wins(scores, answers)[None])
    copied = TrueBias(
        ("a", "b"), labels[rows], losses[:, rows], claim_wins(scores[rows], answers[rows])[None]
    )
    for by in ("auroc", "loss"):
        assert torch.allclose(bias.rmm(by, weights.float()), copied.rmm(by), atol=1e-5)


def test_true_bias_leaves_out_what_does_not_divide():
    source = SOURCES["scenes"]
    examples = draw_examples(source, 30, 1)
    bias = true_bias({"box": box(source.classes)}, examples, scenes.binary)
    shown = examples.labels.sum(0)
    assert set(bias.attributes) == {
        name for name, n in zip(scenes.binary, shown.tolist(), strict=True) if 2 <= n <= 28
    }
    assert torch.allclose(bias.losses[0], example_losses(box(source.classes), examples))
    alike = replace(examples, labels=torch.ones(30, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="No attribute divides"):
        true_bias({}, alike, ("a", "b"))


@pytest.mark.parametrize("world", SOURCES)
def test_embedded_black_boxes_have_losses_that_differ(world):
    source, targets = load_black_boxes(world)
    assert len(targets) == 3
    examples = draw_examples(source, 60, 4)
    for target in targets.values():
        losses = example_losses(target, examples).numpy()
        assert np.quantile(losses, 0.9) > 3 * np.quantile(losses, 0.1)


def test_unknown_world():
    with pytest.raises(InputError, match="faces or scenes"):
        load_black_boxes("animals")
