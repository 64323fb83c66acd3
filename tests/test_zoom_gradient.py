import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.zoom.directions import directions, text_directions
from visiondx.zoom.gradient_directions import gradient_directions, gradient_relevance
from visiondx.zoom.relevance import relevance_matrix
from zoom_standins import NEUTRAL, GridEncoder, GridGenerator, prompt, real

WORDS = [prompt(0), prompt(3), prompt(11)]


class CurvedGenerator(GridGenerator):
    """Bends with its styles, so that every image has another gradient."""

    def synthesize(self, styles):
        return super().synthesize(styles + 0.3 * torch.sin(styles).roll(1, 1))


def setting(images=5, generator=None):
    generator, encoder = generator or CurvedGenerator(), GridEncoder()
    delta_t = text_directions(encoder, WORDS, NEUTRAL)
    return generator, encoder, delta_t, generator.sample_styles(images, 2)


def differences(generator, encoder, delta_t, styles, step=1e-4):
    """Mean derivative of CLIP(G(s))·Δt with each channel, in float64: (N, c_S)."""

    def mean_scores(moved):
        with torch.no_grad():
            return (encoder.embed_images(generator.synthesize(moved)) @ delta_t.double().T).mean(0)

    rows = []
    for axis in torch.eye(16, dtype=torch.float64):
        up, down = (mean_scores(styles.double() + sign * step * axis) for sign in (1, -1))
        rows.append((up - down) / (2 * step))
    return torch.stack(rows, 1)


def expected(generator, encoder, delta_t, styles):
    """In deviations of style, none for ToRGB, at unit length."""
    scale = generator.style_std.double() * generator.editable
    return F.normalize(differences(generator, encoder, delta_t, styles) * scale, dim=1)


@pytest.mark.parametrize("batch", [2, 32])
def test_equals_finite_differences(batch):
    generator, encoder, delta_t, styles = setting()
    found = gradient_relevance(generator, encoder, delta_t, styles, batch=batch)
    assert torch.allclose(found.double(), expected(*setting()), atol=1e-4)
    assert not found[:, 6:9].any()  # ToRGB
    assert torch.allclose(found.norm(dim=1), torch.ones(3))


def test_noise_averages_the_gradients_of_noisy_styles():
    generator, encoder, delta_t, styles = setting()
    found = gradient_relevance(generator, encoder, delta_t, styles, noise=0.7, samples=3, seed=4)
    drawn = torch.Generator().manual_seed(4)
    noise = torch.cat([torch.randn(5, 16, generator=drawn) for _ in range(3)])
    noisy = styles.repeat(3, 1) + 0.7 * noise * generator.style_std * generator.editable
    assert torch.allclose(found.double(), expected(generator, encoder, delta_t, noisy), atol=1e-4)
    plain = gradient_relevance(generator, encoder, delta_t, styles)
    assert (found - plain).abs().max() > 0.01


def test_deterministic_given_styles_and_seed():
    def find(**changed):
        generator, encoder, _, styles = setting()
        noisy = {"noise": 0.5, "samples": 2, "seed": 0, "channels": 3, **changed}
        return gradient_directions(generator, encoder, WORDS, NEUTRAL, styles, **noisy).delta_s

    assert torch.equal(find(), find())
    assert torch.allclose(find(), find(batch=2), atol=1e-6)
    assert not torch.allclose(find(), find(seed=1), atol=1e-3)


def test_words_find_their_channel_as_they_do_through_M():
    generator, encoder, _, styles = setting(32, GridGenerator())
    found = gradient_directions(generator, encoder, WORDS, NEUTRAL, styles, channels=1)
    assert found.n_channels == (1, 1, 1)
    assert found.delta_s.argmax(1).tolist() == [0, 3, 11]
    M = relevance_matrix(generator, encoder, 8, cache=None)
    same = directions(M, encoder, WORDS, NEUTRAL, generator.style_std, 0.7)
    assert torch.allclose(found.delta_s, same.delta_s, atol=1e-6)
    assert torch.equal(found.delta_t, same.delta_t)
    assert (found.attributes, found.neutral, found.sided) == (tuple(WORDS), NEUTRAL, "two")


def test_all_attributes_share_the_images():
    generator, encoder, _, styles = setting(32, GridGenerator())
    gradient_directions(generator, encoder, WORDS, NEUTRAL, styles, channels=2)
    assert generator.synthesized == 32


def test_threshold_and_sides_mean_what_they_mean_for_M():
    generator, encoder, delta_t, styles = setting()
    cosines = gradient_relevance(generator, encoder, delta_t, styles)

    def find(**how):
        return gradient_directions(generator, encoder, WORDS, NEUTRAL, styles, **how)

    for sided in ("two", "one"):
        found = find(threshold=0.2, sided=sided)
        kept = (cosines if sided == "one" else cosines.abs()) > 0.2
        assert torch.equal(found.delta_s != 0, kept)
        expected = F.normalize(cosines * kept, dim=1) * generator.style_std
        assert torch.allclose(found.delta_s, expected, atol=1e-6)
    assert find(channels=4).n_channels == (4, 4, 4)
    assert find(threshold=[0.2, 0.0, 0.2]).n_channels[1] == 13
    with pytest.raises(InputError, match="largest λ that works"):
        find(threshold=1.1)
    with pytest.raises(InputError, match="1 to 13"):
        find(channels=14)
    with pytest.raises(InputError, match="3 attributes need as many"):
        find(threshold=[0.1])


def test_parameters_are_left_as_they_were():
    generator, encoder, delta_t, styles = setting()
    gradient_relevance(generator, encoder, delta_t, styles)
    assert generator.gain.requires_grad
    assert generator.gain.grad is None


def test_input_is_checked():
    generator, encoder, _, styles = setting()

    def find(styles=styles, **how):
        return gradient_directions(generator, encoder, WORDS, NEUTRAL, styles, **how)

    with pytest.raises(InputError, match=r"\(B, 16\)"):
        find(styles[:, :5])
    with pytest.raises(InputError, match="noise above 0"):
        find(samples=4)
    with pytest.raises(InputError, match="noise -1"):
        find(noise=-1.0)
    with pytest.raises(InputError, match="sided"):
        find(sided="three")
    styles[3, 2] = float("nan")
    with pytest.raises(FloatingPointError, match=r"gradient is NaN .* for image 3"):
        find(styles)
    generator.editable[:] = False
    with pytest.raises(InputError, match="No style channel is relevant to attribute 0"):
        find(torch.zeros(1, 16), channels=1)


class Small(CurvedGenerator):
    """Holds two images at a time."""

    def synthesize(self, styles):
        if len(styles) > 2:
            raise MemoryError
        return super().synthesize(styles)


def test_where_memory_runs_out_the_batch_halves_and_the_result_stays():
    generator, encoder, delta_t, styles = setting()
    expected = gradient_relevance(generator, encoder, delta_t, styles, batch=2)
    with pytest.warns(RuntimeWarning, match="with 64 images at once; going on with 2"):
        found = gradient_relevance(Small(), encoder, delta_t, styles)
    assert torch.equal(found, expected)


def test_half_precision_within_its_bound():
    """The bound of the docstring, .998, on another generator; there is something to be bounded."""
    generator, encoder = real()
    delta_t = F.normalize(torch.randn(3, 8), dim=1)
    styles = generator.sample_styles(6, 0)
    full, half, default = (
        gradient_relevance(generator, encoder, delta_t, styles, half=half)
        for half in (False, True, None)
    )
    assert (full * half).sum(1).min() > 0.998
    assert not torch.equal(full, half)
    assert torch.equal(full, default)  # on a CPU, float32


def test_what_overflows_half_precision_is_differentiated_in_full():
    generator, encoder = real(gain=1e8)  # far above 65,504
    delta_t = F.normalize(torch.randn(3, 8), dim=1)
    styles = generator.sample_styles(4, 0)
    full, half = (
        gradient_relevance(generator, encoder, delta_t, styles, half=half) for half in (False, True)
    )
    assert torch.equal(full, half)
    assert full.abs().max() > 0
