"""What is measured at real sizes, at sizes that take no time."""

import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.core.memory import peak_memory_of_process
from visiondx.core.timing import peak_memory
from visiondx.models.stylegan2 import SynthesisNetwork
from visiondx.search.batching import image_bytes
from visiondx_worlds.quality import real_sizes
from visiondx_worlds.quality.real_sizes import Work, config_f, config_f_channels, measure
from zoom_standins import Reader

SMALL = {"resolution": 16, "base": 64, "top": 8}


def test_config_f_has_the_official_number_of_styles():
    """9,088 at 1,024 px, 6,048 of them not of ToRGB, as Wu et al. and StyleCLIP count them."""
    with torch.device("meta"):
        network = SynthesisNetwork(512, config_f_channels(1024))
    layers = zip(network.named_layers(), network.widths, strict=True)
    assert network.num_styles == 9088
    assert sum(width for (name, _), width in layers if not name.endswith("torgb")) == 6048
    assert config_f_channels(8, 64, 12) == {4: 12, 8: 8}
    for resolution in (4, 100):
        with pytest.raises(InputError, match="power of two"):
            config_f_channels(resolution)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_is_said_of_an_image_is_near_what_it_takes(checkpoint):
    generator = config_f(64, base=1024, top=64, width=16)
    generator.checkpoint = checkpoint
    styles = generator.sample_styles(1, 0).requires_grad_()
    held = peak_memory(lambda: torch.autograd.grad(generator.synthesize(styles).sum(), styles))
    assert 0.9 * held < generator.image_bytes() < 1.6 * held
    assert image_bytes(generator) == generator.image_bytes() + 1024 * 64**2
    with torch.no_grad():
        held = peak_memory(lambda: generator.synthesize(styles))
    assert 0.7 * held < generator.image_bytes(gradient=False) < 1.6 * held


def test_the_peak_of_a_process_grows_with_what_it_holds():
    before = peak_memory_of_process()
    held = torch.ones(2**26)  # a quarter of a GiB
    after = peak_memory_of_process()
    assert 2**20 < before <= after
    assert after >= held.nbytes
    del held
    assert peak_memory_of_process() > after - 2**26  # a peak stays, but for what is counted late


class Clip(Reader):
    logit_scale = 10.0

    def embed_texts(self, texts):
        codes = torch.tensor(
            [[float(ord(letter)) for letter in f"{text:30}"[:30]] for text in texts]
        )
        return F.normalize(codes[:, -8:] - 90 + codes[:, 7:15], dim=1)


def test_each_work_draws_what_it_says(monkeypatch):
    monkeypatch.setattr(real_sizes, "random_encoder", lambda name, seed: Clip(1.0))
    searches = [
        real_sizes.run(Work("search", checkpoint=checkpoint, **SMALL))
        for checkpoint in (False, True)
    ]
    assert [cost.images for cost in searches] == [3, 3]
    assert searches[0].answer == searches[1].answer
    assert len(set(searches[0].answer)) == 4  # the step moved p and w
    gradient = real_sizes.run(Work("gradient", images=3, **SMALL))
    assert gradient.images == 3
    assert gradient.editable == 8 + (8 + 8) + (8 + 4)  # conv1 of 4 px, then conv0 and conv1
    relevance = real_sizes.run(Work("relevance", images=2, channels=3, **SMALL))
    assert relevance.images == 1 + 3 * 2 * 2  # and one that tells the embedding's width
    assert len(relevance.answer) == 3 * 8
    assert all(cost.per_image * cost.images == pytest.approx(cost.seconds) for cost in searches)


def test_bad_work_is_refused():
    with pytest.raises(InputError, match="search, gradient, relevance, got 'sleep'"):
        measure(Work("sleep", 8))
