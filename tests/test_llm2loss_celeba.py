"""The reader of CelebA on a tiny folder of its shape, and losses of a recogniser on it."""

import pytest
import torch
from torch import nn

from celeba_standin import COLUMNS, write_celeba
from llm2loss_standins import ColourEncoder
from visiondx.errors import InputError
from visiondx.llm2loss.celeba import CelebA
from visiondx.llm2loss.data import run_model
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx.worlds import faces


@pytest.fixture
def root(tmp_path):
    return write_celeba(tmp_path)


def test_splits_identities_and_attributes(root):
    everything = CelebA.open(root)
    assert len(everything) == 120
    assert everything.attributes == ("Bald", "Eyeglasses", "Smiling", "Wearing Hat")
    assert everything.identities[:7].tolist() == [1, 2, 3, 4, 5, 6, 1]
    truth = faces.labels(faces.sample(120, 0))[:, [faces.binary.index(c) for c in COLUMNS]]
    assert torch.equal(everything.labels, truth)
    sizes = [len(CelebA.open(root, split)) for split in ("train", "valid", "test")]
    assert sizes == [40, 40, 40]
    test = CelebA.open(root / "celeba", "test")  # the folder itself will do
    assert test.paths[0].name == "000081.jpg"
    assert torch.equal(test.labels, truth[80:])
    assert test[test.labels[:, 1]].labels[:, 1].all()


def test_batches_are_images_with_their_people(root):
    batches = list(CelebA.open(root, "train").batches(16))
    assert [len(images) for images, _ in batches] == [16, 16, 8]
    images, who = batches[0]
    assert images.shape == (16, 3, 22, 18)
    assert 0 <= images.min() < images.max() <= 1
    assert who.tolist() == [i % 6 + 1 for i in range(16)]


def test_an_ensemble_learns_from_it(root):
    """The pretrained path from end to end, with stand-ins for CLIP and the recogniser."""
    found = CelebA.open(root)
    recogniser = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
    loss = nn.CrossEntropyLoss(reduction="none")
    data = run_model(recogniser, loss, found.batches(50), ColourEncoder())
    assert len(data) == 120
    model = LossModel.fit(data, ColourEncoder(), settings=FitSettings(epochs=2))
    assert model.ask(["red", "blue"]).value.isfinite().all()


def test_bad_folders(root, tmp_path):
    with pytest.raises(InputError, match="no split 'val': choose from train, valid, test, all"):
        CelebA.open(root, "val")
    with pytest.raises(InputError, match="lacks img_align_celeba: put img_align_celeba/ and"):
        CelebA.open(tmp_path / "gone")
    home = root / "celeba"
    (home / "img_align_celeba" / "000100.jpg").unlink()
    assert len(CelebA.open(root, "train")) == 40
    with pytest.raises(InputError, match=r"1 of 40 images .* such as 000100.jpg: unpack"):
        CelebA.open(root, "test")
    (home / "img_align_celeba" / "000001.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"000001.jpg cannot be read as an image"):
        next(CelebA.open(root, "train").batches())
    lines = (home / "identity_CelebA.txt").read_text().splitlines(keepends=True)
    (home / "identity_CelebA.txt").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"lists other images .* 119 and 120"):
        CelebA.open(root)
    (home / "list_attr_celeba.txt").write_text("2\nBald \n000001.jpg yes\n")
    with pytest.raises(InputError, match=r"list_attr_celeba.txt cannot be read as a list"):
        CelebA.open(root)
    (home / "list_eval_partition.txt").unlink()
    with pytest.raises(InputError, match=r"lacks list_eval_partition.txt"):
        CelebA.open(root)
