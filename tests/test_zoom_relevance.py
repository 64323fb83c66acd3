import warnings

import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.zoom.directions import directions
from visiondx.zoom.relevance import IMAGES, known_relevance, relevance, relevance_matrix
from visiondx_worlds.models import zoo
from visiondx_worlds.models.generators import save_relevance
from zoom_standins import NEUTRAL, GridEncoder, GridGenerator, prompt, real


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


@pytest.mark.parametrize("batch", [1, 7, 256, None])
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


def killed_after(generator, images):
    """Synthesis ends like a process that is killed once so many images are drawn."""
    synthesize = generator.synthesize

    def interrupted(styles):
        if generator.synthesized + len(styles) > images:
            raise KeyboardInterrupt
        return synthesize(styles)

    generator.synthesize = interrupted


@pytest.mark.parametrize("drawn", [1, 40, 61, 100])
def test_killed_work_goes_on_where_it_was_to_the_same_bits(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr("visiondx.zoom.relevance.SAVE_SECONDS", 0.0)
    encoder = GridEncoder()

    def compute(generator):
        return relevance_matrix(generator, encoder, 4, batch=3, cache=tmp_path)

    whole = GridGenerator()
    expected = relevance_matrix(whole, encoder, 4, batch=3, cache=None)
    assert whole.synthesized == 1 + 13 * 4 * 2
    first = GridGenerator()
    killed_after(first, drawn)
    with pytest.raises(KeyboardInterrupt):
        compute(first)
    done = 6 * ((drawn - 1) // 6)  # a batch has 3 pairs
    assert [path.name.split(".", 1)[1] for path in tmp_path.iterdir()] == (
        ["part.safetensors"] if done else []
    )
    second = GridGenerator()
    assert torch.equal(compute(second), expected)
    assert second.synthesized == whole.synthesized - done
    assert [path.name.split(".", 1)[1] for path in tmp_path.iterdir()] == ["safetensors"]


def test_a_resumed_run_keeps_the_batch_that_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr("visiondx.zoom.relevance.SAVE_SECONDS", 0.0)
    first = GridGenerator()
    killed_after(first, 61)
    with pytest.raises(KeyboardInterrupt):
        relevance_matrix(first, GridEncoder(), 4, batch=3, cache=tmp_path)
    second, sizes = GridGenerator(), []
    synthesize = second.synthesize
    second.synthesize = lambda styles: sizes.append(len(styles)) or synthesize(styles)
    relevance_matrix(second, GridEncoder(), 4, cache=tmp_path)
    assert max(sizes) == 3


def test_a_damaged_part_is_begun_again(tmp_path, monkeypatch):
    monkeypatch.setattr("visiondx.zoom.relevance.SAVE_SECONDS", 0.0)
    first = GridGenerator()
    killed_after(first, 61)
    with pytest.raises(KeyboardInterrupt):
        relevance_matrix(first, GridEncoder(), 4, batch=3, cache=tmp_path)
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:40])
    second = GridGenerator()
    with pytest.warns(UserWarning, match="is damaged"):
        found = relevance_matrix(second, GridEncoder(), 4, batch=3, cache=tmp_path)
    assert torch.equal(found, relevance_matrix(GridGenerator(), GridEncoder(), 4, 2.5, 0, 3, None))


def test_where_memory_runs_out_the_batch_halves_and_the_result_stays():
    class Small(GridGenerator):
        def synthesize(self, styles):
            if len(styles) > 5:
                raise MemoryError
            return super().synthesize(styles)

    expected = relevance_matrix(GridGenerator(), GridEncoder(), 4, cache=None)
    with pytest.warns(RuntimeWarning, match="with 52 images|with 64 images"):
        found = relevance_matrix(Small(), GridEncoder(), 4, cache=None)
    assert torch.allclose(found, expected, atol=1e-6)


def test_fine_layers_can_be_left_out(tmp_path):
    encoder = GridEncoder()

    def compute(resolution):
        generator = GridGenerator()
        for layer in generator.layers:
            layer.resolution = int(layer.name[1])
        return relevance_matrix(generator, encoder, 2, cache=tmp_path, resolution=resolution)

    whole, coarse = compute(None), compute(4)
    assert torch.allclose(coarse[:6], whole[:6], atol=1e-6)
    assert coarse[:6].any()
    assert not coarse[6:].any()
    assert whole[9:15].any()
    assert torch.equal(compute(8), whole)
    assert len(list(tmp_path.iterdir())) == 2  # 8 is all there is
    with pytest.raises(InputError, match=r"No layer has resolution 2 or less.*\[4, 8\]"):
        compute(2)


def test_by_default_it_is_kept_in_the_users_cache(user_cache):
    generator, encoder = GridGenerator(), GridEncoder()
    assert known_relevance(generator, encoder) is None
    M = relevance_matrix(generator, encoder)
    (path,) = user_cache.iterdir()
    assert path.name.startswith("relevance-")
    drawn = generator.synthesized
    assert torch.equal(known_relevance(generator, encoder), M)
    assert torch.equal(relevance(generator, encoder), M)
    assert generator.synthesized == drawn
    generator.fingerprint = "another generator"
    assert known_relevance(generator, encoder) is None
    generator.fingerprint, encoder.image_fingerprint = "grid", "another encoder"
    assert known_relevance(generator, encoder) is None


def test_another_generators_matrix_is_never_taken():
    """The hash is of the weights: equal in name and shape, other by one number."""
    (generator, encoder), (other, _) = real(), real()
    other.load_state_dict(generator.state_dict())
    M = relevance_matrix(generator, encoder, IMAGES)
    assert torch.equal(known_relevance(other, encoder), M)
    other.network.synthesis.b4.conv1.bias[0] += 1e-3
    assert known_relevance(other, encoder) is None
    other.load_state_dict(generator.state_dict())
    other.settings = {"conv_clamp": 256.0}  # the same weights draw other images
    assert known_relevance(other, encoder) is None


def test_long_work_is_announced_once(monkeypatch):
    monkeypatch.setattr("visiondx.zoom.relevance.LONG", 0.0)
    with pytest.warns(UserWarning, match="takes 104 images, 92 more: about") as heard:
        relevance_matrix(GridGenerator(), GridEncoder(), 4, batch=3, cache=None)
    assert len(heard) == 1
    monkeypatch.setattr("visiondx.zoom.relevance.LONG", 1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relevance_matrix(GridGenerator(), GridEncoder(), 4, batch=3, cache=None)


def test_half_precision_within_its_bound():
    """The bound of the docstring, .998 and .03, on another generator."""
    generator, encoder = real()
    full, half, default = (
        relevance_matrix(generator, encoder, 4, cache=None, half=half)
        for half in (False, True, None)
    )
    rows = full.norm(dim=1) > 0
    assert rows.sum() == generator.editable.sum()
    assert F.cosine_similarity(full[rows], half[rows]).min() > 0.998
    delta_t = F.normalize(torch.randn(5, 8), dim=1)
    assert (delta_t @ (full - half).T).abs().max() < 0.03
    assert not torch.equal(full, half)
    assert torch.equal(full, default)  # on a CPU, float32


def test_precisions_are_kept_apart_and_either_is_known():
    generator, encoder = real()
    half = relevance_matrix(generator, encoder, half=True)
    assert torch.equal(known_relevance(generator, encoder), half)
    assert known_relevance(generator, encoder, half=False) is None
    full = relevance_matrix(generator, encoder)
    assert torch.equal(known_relevance(generator, encoder), full)
    assert torch.equal(known_relevance(generator, encoder, half=True), half)


def test_what_overflows_half_precision_is_done_again_in_full():
    generator, encoder = real(gain=1e8)  # far above 65,504
    full, half = (
        relevance_matrix(generator, encoder, 2, cache=None, half=half) for half in (False, True)
    )
    assert torch.equal(full, half)


def test_an_embedding_without_a_number_stops_it(tmp_path):
    encoder = GridEncoder()
    encoder.embed_images = lambda images: torch.full((len(images), 17), float("nan"))
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        relevance_matrix(GridGenerator(), encoder, 2, cache=tmp_path)
    assert not list(tmp_path.iterdir())


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
