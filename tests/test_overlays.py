import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.show import overlays


def test_points_and_parts_are_drawn_where_they_are():
    images = torch.full((1, 3, 8, 8), 0.5)
    drawn = overlays.draw_points(images, torch.tensor([[[0.25, 0.75]]]), scale=8)
    assert drawn.shape == (1, 3, 64, 64)
    assert torch.allclose(drawn[0, :, 48, 16], torch.tensor(overlays.AFTER))
    assert (drawn[0, :, 16, 48] == 0.5).all()
    both = overlays.draw_points(
        images, torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[0.75, 0.25]]]), scale=8
    )
    assert torch.allclose(both[0, :, 16, 48], torch.tensor(overlays.BEFORE))
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 2, 3] = 1
    tinted = overlays.draw_parts(images, labels, 3)
    assert (tinted[0, :, 0, 0] == 0.5).all()
    assert (tinted[0, :, 2, 3] != 0.5).any()
    assert len(set(overlays.part_colours(15))) == 15
    with pytest.raises(InputError, match="21 parts"):
        overlays.part_colours(30)
    with pytest.raises(InputError, match="images' shape"):
        overlays.draw_parts(images, labels[:, :4], 3)
    with pytest.raises(InputError, match="need points"):
        overlays.draw_points(images, torch.rand(2, 3, 2))
