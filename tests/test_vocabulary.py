"""Words that an encoder cannot know: the embedded one, what it never read; others, mere letters."""

import random
import re
import string

import pytest
from open_clip.tokenizer import SimpleTokenizer

from visiondx.models.encoder import Encoder
from visiondx.models.vocabulary import known_by_pieces, words_of
from visiondx_worlds.models.tiny_encoder import vocabulary
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.grammar import read_words


@pytest.fixture(scope="module")
def embedded() -> Encoder:
    return Encoder.load("embedded")


def test_words_are_letters_in_lower_case_whatever_stands_between():
    assert words_of("A face's 2 jet-black Bärte, 日本!") == [
        "a",
        "face",
        "s",
        "jet",
        "black",
        "bärte",
        "日本",
    ]


def test_the_embedded_encoder_knows_what_it_read_and_nothing_else(embedded):
    said = embedded.unknown_words(
        [
            "a face with qwxzk",
            "A photo of a FACE with round spectacles",
            "a car in the snow",
            "a face with a necktie and a scarf, a scarf",
        ]
    )
    assert said == [["qwxzk"], [], [], ["necktie", "scarf"]]


def test_no_caption_and_no_held_out_prompt_has_an_unknown_word(embedded):
    texts = []
    for world in (faces, animals, scenes):
        texts += world.grammar.captions(world, world.sample(300, 5), 5)
        for name in world.binary:
            texts += [world.prompt(name, p, 7, heldout=True) for p in (True, False)]
    assert len(texts) > 900
    assert not any(embedded.unknown_words(texts))
    held = set(re.findall(r"[a-z]+", str(list(_strings(read_words("heldout.yaml"))))))
    assert len(held) > 100
    assert held <= vocabulary()


def _strings(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from _strings(each)


def test_open_clips_tokenizer_tells_letters_from_words():
    known = known_by_pieces(SimpleTokenizer())
    common = "a face with necktie goatee sunglasses freckles sideburns headscarf dreadlocks mohawk"
    assert all(known(word) for word in common.split())
    words = {
        w
        for file in ("celeba.yaml", "scenes.yaml")
        for t in _strings(read_words(file))
        for w in words_of(t)
    }
    assert len(words) > 150
    assert not [word for word in words if not known(word)]
    rng = random.Random(0)
    nonsense = ["".join(rng.choices(string.ascii_lowercase, k=8)) for _ in range(200)]
    assert sum(not known(word) for word in nonsense) > 180


def test_an_encoder_of_which_nobody_knows_says_nothing(embedded):
    silent = Encoder(embedded.clip, embedded.tokenize, "own")
    assert silent.unknown_words(["a face with qwxzk", "b"]) == [[], []]
