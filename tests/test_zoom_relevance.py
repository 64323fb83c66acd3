import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.zoom.directions import directions
from visiondx.zoom.relevance import relevance, relevance_matrix
from visiondx_worlds.models import zoo
from visiondx_worlds.models.generators import save_relevance
from zoom_standins import NEUTRAL, GridEncoder, GridGenerator, prompt


def by_hand(generator, encoder, images, sigma, seed):
    """StyleCLIP's recipe, one image at a time."""
    styles = generator.sample_styles(images, seed)
    rows = torch.zeros(generator.num_styles, 17)
    for channel in range(generator.num_styles):
        if not generator.editable[channel]:
            continue
        changes = []
        for style in styles:
            ends = []
            for sign in (1, -1):
                pushed = style.clone()
                deviation = generator.style_std[channel]
                pushed[channel] = generator.style_mean[channel] + sign * sigma * deviation
                ends.append(encoder.embed_images(generator.synthesize(pushed[None]))[0])
            changes.append(F.normalize(ends[0] - ends[1], dim=0))
        rows[channel] = F.normalize(torch.stack(changes).mean(0), dim=0)
    return rows


@pytest.mark.parametrize("batch", [2, 7, 256])
def test_equals_the_recipe_at_any_batch(batch):
    generator, encoder = GridGenerator(), GridEncoder()
    with torch.no_grad():
        expected = by_hand(generator, encoder, 3, 4.0, seed=1)
    found = relevance_matrix(generator, encoder, 3, 4.0, 1, batch, cache=None)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not found[6:9].any()  # ToRGB
    assert not found[15].any()  # a channel without effect, and no 0 / 0
    norms = found.norm(dim=1)
    assert torch.allclose(norms[norms > 0], torch.ones(12), atol=1e-5)


def test_words_find_their_channel():
    generator, encoder = GridGenerator(), GridEncoder()
    M = relevance_matrix(generator, encoder, 4, cache=None)
    found = directions(M, encoder, [prompt(0), prompt(11)], NEUTRAL, generator.style_std, 0.7)
    assert found.n_channels == (1, 1)
    assert found.delta_s[0].argmax() == 0
    assert found.delta_s[1].argmax() == 11


def test_second_call_reads_the_cache_and_settings_have_their_own(tmp_path, monkeypatch):
    generator, encoder = GridGenerator(), GridEncoder()
    first = relevance_matrix(generator, encoder, 2, cache=tmp_path)
    made = generator.synthesized
    assert torch.equal(relevance_matrix(generator, encoder, 2, cache=tmp_path), first)
    assert generator.synthesized == made
    encoder.image_fingerprint = "another"
    relevance_matrix(generator, encoder, 2, cache=tmp_path)
    assert generator.synthesized > made
    relevance_matrix(generator, encoder, 3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # one matrix each, no layers left
    monkeypatch.setattr("visiondx.zoom.relevance.METHOD", 99)
    relevance_matrix(generator, encoder, 3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4  # another method has its own


def test_interrupted_work_resumes_by_layer(tmp_path):
    generator, encoder = GridGenerator(), GridEncoder()
    expected = relevance_matrix(generator, encoder, 4, cache=None)
    whole = generator.synthesized
    generator.synthesized, synthesize = 0, generator.synthesize

    def interrupted(styles):
        if generator.synthesized > 60:  # the first layer takes 6 * 4 * 2 = 48, and one more
            raise KeyboardInterrupt
        return synthesize(styles)

    generator.synthesize = interrupted
    with pytest.raises(KeyboardInterrupt):
        relevance_matrix(generator, encoder, 4, batch=8, cache=tmp_path)
    assert [p.name.split(".", 1)[1] for p in tmp_path.iterdir()] == ["b4.conv1.safetensors"]
    generator.synthesize, generator.synthesized = synthesize, 0
    found = relevance_matrix(generator, encoder, 4, cache=tmp_path)
    assert torch.allclose(found, expected, atol=1e-6)
    assert generator.synthesized == whole - 48
    assert len(list(tmp_path.iterdir())) == 1


def test_unreadable_cache_is_made_again(tmp_path):
    generator, encoder = GridGenerator(), GridEncoder()
    first = relevance_matrix(generator, encoder, 2, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert torch.equal(relevance_matrix(generator, encoder, 2, cache=tmp_path), first)


@pytest.fixture
def empty_zoo(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path


def keep(value, generator, encoder, world):
    M = torch.full((16, 17), value)
    about = {"notebook": "train/04", "seed": 0, "quality": {}}
    save_relevance(M, generator, encoder, 9, world=world, **about)
    return M


def test_shipped_matrix_is_taken_only_for_its_own_weights(empty_zoo):
    tmp_path = empty_zoo
    generator, encoder = GridGenerator(), GridEncoder()
    shipped = keep(0.25, generator, encoder, "faces")
    assert torch.equal(relevance(generator, encoder, 2, tmp_path / "cache"), shipped)
    assert generator.synthesized == 0
    generator.fingerprint = "trained again"
    found = relevance(generator, encoder, 2, tmp_path / "cache")
    assert generator.synthesized > 0
    assert not torch.equal(found, shipped)


def test_each_world_keeps_its_own(empty_zoo):
    faces, animals, encoder = GridGenerator(), GridGenerator(), GridEncoder()
    animals.fingerprint = "cats and dogs"
    kept = {g: keep(v, g, encoder, w) for g, v, w in ((faces, 0.25, "a"), (animals, 0.5, "b"))}
    assert set(zoo.manifest()) == {"a-relevance", "b-relevance"}
    for generator, M in kept.items():
        assert torch.equal(relevance(generator, encoder, 2, empty_zoo / "cache"), M)
        assert generator.synthesized == 0
    # a world's next matrix takes the place of its last, and of no other's
    newer = keep(0.75, animals, encoder, "b")
    assert torch.equal(relevance(animals, encoder, 2, empty_zoo / "cache"), newer)
    assert torch.equal(relevance(faces, encoder, 2, empty_zoo / "cache"), kept[faces])
    encoder.image_fingerprint = "another reader"
    relevance(animals, encoder, 2, empty_zoo / "cache")
    assert animals.synthesized > 0


def test_an_altered_matrix_is_computed_again(empty_zoo):
    generator, encoder = GridGenerator(), GridEncoder()
    keep(0.25, generator, encoder, "faces")
    path = empty_zoo / "weights" / "faces-relevance.safetensors"
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    found = relevance(generator, encoder, 2, empty_zoo / "cache")
    assert torch.equal(found, relevance_matrix(generator, encoder, 2, cache=None))


def test_numbers_are_checked():
    with pytest.raises(InputError, match="images >= 1"):
        relevance_matrix(GridGenerator(), GridEncoder(), 0, cache=None)
