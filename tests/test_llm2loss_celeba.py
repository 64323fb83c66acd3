"""The reader of CelebA on a tiny folder of its shape, and losses of a recogniser on it."""

import pytest
import torch
from torch import nn

from celeba_standin import COLUMNS, write_celeba
from llm2loss_standins import ColourEncoder
from visiondx.core.errors import InputError
from visiondx.llm2loss.celeba.images import CelebA
from visiondx.llm2loss.celeba.recogniser import celeba_faces, celeba_losses
from visiondx.llm2loss.data import run_model
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx_worlds.worlds import faces


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


RECOGNISER = """
from torch import nn
from visiondx.models.target import Target

def load():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    return Target(module, "multiclass", labels=("1", "2", "3", "5"))
"""


def test_the_pretrained_backend(root, tmp_path):
    (tmp_path / "mine.py").write_text(RECOGNISER)
    spec = f"{tmp_path / 'mine.py'}:load"
    found, target = celeba_faces(root, spec)
    assert set(found.identities.tolist()) == {1, 2, 3, 5}
    assert len(found) == 80
    seen = tmp_path / "seen.txt"
    seen.write_text("\n".join(path.name for path in found.paths[:20]))
    rest, _ = celeba_faces(root, spec, seen)
    assert [path.name for path in rest.paths] == [path.name for path in found.paths[20:]]
    images, people = next(found.batches(1))
    with torch.no_grad():
        by_hand = -target.logits(images).log_softmax(1)[0, target.labels.index(str(int(people)))]
    (everything,) = celeba_losses(found, target, ColourEncoder(), (80,), 0)
    assert (everything.losses - by_hand).abs().min() < 1e-5


def test_the_pretrained_backend_fails_early(root, tmp_path):
    (tmp_path / "mine.py").write_text(RECOGNISER)
    spec = f"{tmp_path / 'mine.py'}:load"
    with pytest.raises(InputError, match="needs CelebA and a recogniser: set root"):
        celeba_faces("", "")
    with pytest.raises(InputError, match="No file at"):
        celeba_faces(root, str(tmp_path / "gone.py:load"))
    with pytest.raises(InputError, match="No list of training images"):
        celeba_faces(root, spec, tmp_path / "gone.txt")
    found, target = celeba_faces(root, spec)
    with pytest.raises(InputError, match="100 images were asked for and CelebA has 80"):
        celeba_losses(found, target, ColourEncoder(), (60, 40), 0)
    names = tmp_path / "all.txt"
    names.write_text(" ".join(path.name for path in found.paths))
    with pytest.raises(InputError, match="No image of CelebA is left"):
        celeba_faces(root, spec, names)


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
