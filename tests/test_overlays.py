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
    masked = overlays.draw_masks(images, labels == 1)
    assert torch.allclose(masked[0, :, 0, 0], torch.tensor(0.45 * 0.5))
    half = 0.55 * 0.5 + 0.45 * torch.tensor(overlays.AFTER)
    assert torch.allclose(masked[0, :, 2, 3], half)
    with pytest.raises(InputError, match="Masks must have the images' shape"):
        overlays.draw_masks(images, labels[:, :4])
    with pytest.raises(InputError, match="need points"):
        overlays.draw_points(images, torch.rand(2, 3, 2))


@pytest.mark.parametrize("shape", [(512, 256), (64, 32)])
def test_answers_about_large_pictures_are_drawn_on_small_ones(shape):
    """The target sees all pixels; its point and its part lie where they lay."""
    h, w = shape
    images = torch.full((2, 3, h, w), 0.5)

    class Points:
        task = "keypoints"

        def keypoints(self, seen):
            assert seen.shape == images.shape
            return torch.tensor([[[0.25, 0.75]]]).repeat(len(seen), 1, 1)

    class Parts:
        task = "segmentation"

        def parts(self, seen):
            assert seen.shape == images.shape
            found = torch.zeros(len(seen), 2, h, w)
            found[:, 1, : h // 2] = 1
            found[:, 0, h // 2 :] = 1
            return found

    side = min(h, overlays.SIDE) * overlays.SCALE
    points, parts = (overlays.draw_answers(target, images) for target in (Points(), Parts()))
    assert points.shape == parts.shape == (2, 3, side, side // 2)
    assert torch.allclose(points[0, :, 3 * side // 4, side // 8], torch.tensor(overlays.AFTER))
    assert torch.allclose(points[0, :, side // 4, side // 4], torch.tensor(0.5))
    assert ((parts[1, :, : side // 2 - 8] - 0.5).abs() > 0.01).any(0).all()
    assert torch.allclose(parts[1, :, side // 2 + 8 :], torch.tensor(0.5))
