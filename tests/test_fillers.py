import pytest

from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.fillers import FilledGrammar, denied, filled, with_fillers

WORLDS = [with_fillers(faces), with_fillers(animals)]
ids = [world.name for world in WORLDS]


@pytest.mark.parametrize(
    ("phrase", "filler", "said"),
    [
        ("a hat", "odd", "an odd hat"),
        ("an odd hat", "neat", "a neat odd hat"),
        ("no beard", "real", "no real beard"),
        ("its tongue out", "nice", "its nice tongue out"),
        ("the head of a cat", "nice", "the nice head of a cat"),
        ("thick lips", "nice", "nice thick lips"),
    ],
)
def test_a_filler_stands_before_the_noun(phrase, filler, said) -> None:
    assert filled(phrase, filler) == said


def test_a_denial_keeps_its_article_unless_it_is_a_bare_no() -> None:
    assert denied("a pair of glasses", "no") == "no pair of glasses"
    assert denied("a pair of glasses", "no sign of") == "no sign of a pair of glasses"
    assert denied("fair skin", "no") == "no fair skin"


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_nothing_held_out_is_said_even_around_a_filler(world) -> None:
    fillers = set(world.grammar.fillers["words"])

    def bare(text: str) -> str:
        words = [word for word in text.split() if word not in fillers]
        text = " ".join(words)
        for opening in ("no sign of", "no trace of"):
            for article in ("a ", "an ", ""):
                text = text.replace(f"{opening} {article}", "no ")
        return text.replace(" an ", " a ")

    said = world.caption(world.sample(3000, 1), 1) + world.wrong_caption(world.sample(500, 2), 2)
    said += [
        world.prompt(name, present, seed=s)
        for name in world.binary
        for present in (True, False)
        for s in range(100)
    ]
    unread = [p for both in world.grammar.heldout["phrases"].values() for p in both["absent"]]
    texts = "\n".join(map(bare, said)) + "\n"
    assert not [p for p in unread if f"{p}\n" in texts or f"{p}," in texts or f"{p} and" in texts]


@pytest.mark.parametrize("world", WORLDS, ids=ids)
def test_captions_have_fillers_and_denials_and_fit_the_context(world) -> None:
    captions = world.caption(world.sample(4000, 3), 3)
    share = [
        any(f" {word} " in text for word in world.grammar.fillers["words"]) for text in captions
    ]
    assert 0.3 < sum(share) / len(share) < 0.9
    assert sum("no sign of" in text for text in captions) > 100
    Tokenizer.load()(captions)  # raises for a text that does not fit


@pytest.mark.parametrize("plain", [faces, animals], ids=ids)
def test_a_filled_caption_says_what_is_there(plain) -> None:
    """An attribute that is there is never denied, and what is denied is not there."""
    world = with_fillers(plain)
    denials = {
        name: [denied(p, o) for p in world.grammar.deniable(name) for o in ("no", "no sign of")]
        for name in world.binary
    }
    table = world.sample(3000, 4)
    captions, labels = world.caption(table, 4), world.labels(table)
    found = 0
    for text, row in zip(captions, labels.tolist(), strict=True):
        for name, there in zip(world.binary, row, strict=True):
            if any(f" {d}," in text or text.endswith(f" {d}") for d in denials[name]):
                assert not there, (text, name)
                found += 1
    assert found > 300


def test_what_is_denied_can_be_denied() -> None:
    """Not "no collar and a tag", not "no no hair", not "no the head of a cat"."""
    for world in WORLDS:
        for name in world.binary:
            for phrase in world.grammar.deniable(name):
                assert " and " not in phrase
                assert phrase.split()[0] not in ("no", "the", "its")
    assert "a collar" in WORLDS[1].grammar.deniable("collar")
    assert WORLDS[0].grammar.deniable("eyeglasses")


def test_the_world_itself_and_other_grammars_stay() -> None:
    before = dict(vars(faces))
    assert isinstance(with_fillers(faces).grammar, FilledGrammar)
    assert vars(faces) == before
    assert not isinstance(faces.grammar, FilledGrammar)
    assert with_fillers(scenes) is scenes
    world = with_fillers(faces)
    for name in faces.binary:
        assert world.prompt(name) == faces.prompt(name)
        assert world.prompt(name, False, seed=1, heldout=True) == faces.prompt(
            name, False, seed=1, heldout=True
        )
    assert len({world.prompt("eyeglasses", False, seed=s) for s in range(60)}) > 30
