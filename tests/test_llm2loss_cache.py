"""The embedding cache: computed once, resumed, shared, refused; and what cannot be read."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from llm2loss_standins import ColourEncoder, coloured
from visiondx.core.errors import InputError
from visiondx.llm2loss.cache import Embedded, embed
from visiondx.models.pixels import pixels
from visiondx.models.preprocess import Preprocess


@pytest.fixture
def encoder():
    return ColourEncoder()


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of several sizes in two folders, and a file that is none."""
    home = tmp_path / "pictures"
    (home / "more").mkdir(parents=True)
    for i, image in enumerate(coloured(10)):
        array = (255 * image).byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(array).resize((8 + i, 8))
        picture.save(home / ("more" if i % 2 else "") / f"{i}.png")
    (home / "readme.txt").write_text("no picture")
    (home / ".hidden.png").write_bytes(b"")
    return home


class Items(Dataset):
    """Pairs of an image and a label; the fourth image raises."""

    def __init__(self, images, broken=()):
        self.images, self.broken = images, broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError(f"disk error at {i}")
        return self.images[i], i


def test_every_kind_of_source_gives_the_same_embeddings(encoder):
    images = (255 * coloured(7)).round().byte()
    expected = encoder.embed_images(images / 255)
    arrays = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    loader = DataLoader(Items(images), batch_size=3)
    for source in (images, images / 255, Items(images), arrays, loader, iter(images.split(2))):
        found = embed(source, encoder, batch=3)
        torch.testing.assert_close(found.embeddings, expected)
        assert found.rows.tolist() == list(range(7))
        assert found.unreadable == ()


def test_a_folder_is_searched_and_sorted(encoder, folder):
    found = embed(folder, encoder)
    assert len(found) == 10
    assert list(found.names) == sorted(found.names)
    paths = embed([folder / "4.png", str(folder / "more" / "1.png")], encoder)
    torch.testing.assert_close(paths.embeddings[0], found.embeddings[2], rtol=0, atol=0)


def test_files_are_cut_to_a_centre_square():
    array = np.zeros((8, 48, 3), np.uint8)
    array[:, 8:40] = 255
    cut = pixels(Image.fromarray(array), Preprocess((4, 4)))
    assert cut.shape == (3, 4, 4)
    assert cut.min() == 1


def test_nothing_is_computed_twice(encoder, folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = embed(folder, encoder, cache, batch=4)
    assert encoder.seen == 10
    second = embed(folder, encoder, cache, batch=4)
    assert encoder.seen == 10
    torch.testing.assert_close(second.embeddings, first.embeddings, rtol=0, atol=0)
    Image.new("RGB", (8, 8), "red").save(folder / "more" / "9.png")  # in the last batch of two
    third = embed(folder, encoder, cache, batch=4)
    assert encoder.seen == 12
    assert not torch.equal(third.embeddings[-1], first.embeddings[-1])
    torch.testing.assert_close(third.embeddings[:-1], first.embeddings[:-1], rtol=0, atol=0)
    monkeypatch.setattr("visiondx.llm2loss.cache.METHOD", 99)  # images are read in another way
    embed(folder, encoder, cache, batch=4)
    assert encoder.seen == 22


def test_an_interrupted_run_resumes_with_the_same_result(encoder, tmp_path):
    images = coloured(10)
    whole = embed(images, encoder)

    def until_interrupted():
        yield from images.split(3)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(until_interrupted(), encoder, tmp_path)
    encoder.seen = 0
    again = embed(iter(images.split(3)), encoder, tmp_path)
    assert encoder.seen == 4
    torch.testing.assert_close(again.embeddings, whole.embeddings)


def test_a_damaged_file_of_the_cache_is_made_again(encoder, tmp_path):
    images = coloured(6)
    whole = embed(images, encoder, tmp_path, batch=3)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:40])
    second.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged .*: it is made again"):
        again = embed(images, encoder, tmp_path, batch=3)
    torch.testing.assert_close(again.embeddings, whole.embeddings, rtol=0, atol=0)
    assert encoder.seen == 12
    save_file({"embeddings": torch.ones(3, 4)}, first)  # whole, but not what was written
    with pytest.warns(UserWarning, match="is damaged"):
        again = embed(images, encoder, tmp_path, batch=3)
    torch.testing.assert_close(again.embeddings, whole.embeddings, rtol=0, atol=0)
    again.save(tmp_path)
    path = tmp_path / "embeddings.safetensors"
    for damage in (b"", path.read_bytes()[:-1], first.read_bytes()):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"embeddings.safetensors is damaged .*embed the"):
            Embedded.load(tmp_path)


def test_two_runs_may_share_a_folder(tmp_path):
    """Step by step in turn, each finds or writes whole files, and both find the same."""
    images = coloured(12)
    encoders = [ColourEncoder(), ColourEncoder()]

    def other():
        for part in images.split(3):
            embed(iter([part]), encoders[1], tmp_path)  # the other run is a batch ahead
            yield part

    found = embed(other(), encoders[0], tmp_path)
    torch.testing.assert_close(found.embeddings, embed(images, encoders[1]).embeddings)
    assert encoders[0].seen == 0
    assert len(list(tmp_path.iterdir())) == 4  # no half-written rest


def test_a_cache_of_another_encoder_is_refused(encoder, tmp_path):
    found = embed(coloured(4), encoder, tmp_path)
    other = ColourEncoder("second")
    with pytest.raises(InputError, match=f"another encoder .*{encoder.fingerprint[:12]}"):
        embed(coloured(4), other, tmp_path)
    assert other.seen == 0
    found.save(tmp_path / "result")
    assert len(Embedded.load(tmp_path / "result", encoder)) == 4
    with pytest.raises(InputError, match="another encoder"):
        Embedded.load(tmp_path / "result", other)


def test_unreadable_images_are_listed_counted_and_skipped_if_asked(encoder, folder, tmp_path):
    (folder / "2.png").write_bytes(b"not a picture")
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"2 of 10 images cannot be read: \S*2.png \(it is no.*4.png"
    ):
        embed(folder, encoder, tmp_path / "cache", batch=4)
    assert encoder.seen == 8  # kept all the same
    found = embed(folder, encoder, tmp_path / "cache", batch=4, skip_unreadable=True)
    assert encoder.seen == 8
    assert found.rows.tolist() == [0, 3, 4, 5, 6, 7, 8, 9]
    frame = found.to_frame()
    assert len(frame) == 10
    assert frame.loc[frame["unreadable"] != "", "item"].tolist() == [1, 2]
    assert [name[-5:] for name, _ in found.unreadable] == ["2.png", "4.png"]


def test_items_that_a_data_set_cannot_read(encoder):
    items = Items(coloured(6), broken=(1, 3))
    with pytest.raises(InputError, match=r"2 of 6 .*1 \(OSError: disk error at 1\); 3"):
        embed(items, encoder)
    assert embed(items, encoder, skip_unreadable=True).rows.tolist() == [0, 2, 4, 5]
    with pytest.raises(InputError, match="6 of 6"):
        embed(Items(coloured(6), broken=range(6)), encoder, skip_unreadable=True)


def test_saved_embeddings_come_back(encoder, folder, tmp_path):
    (folder / "2.png").write_bytes(b"")
    found = embed(folder, encoder, skip_unreadable=True)
    found.save(tmp_path / "result")
    again = Embedded.load(tmp_path / "result")
    torch.testing.assert_close(again.embeddings, found.embeddings, rtol=0, atol=0)
    assert again.names == found.names
    assert again.unreadable == found.unreadable
    assert again.to_frame().equals(found.to_frame())
    assert found.plot().axes


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/nowhere", "No folder of images at /nowhere"),
        (["/nowhere/1.png"], "1 of 1 images do not exist"),
        ([], "sequence is empty"),
        (iter([]), "gave no batch"),
        (iter([torch.zeros(3, 8, 8)]), r"\(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"N >= 1"),
        (torch.zeros(2, 8, 8), r"\(2, 8, 8\)"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)], "several sizes"),
        ([5], "int"),
        (5, "cannot be taken from a int"),
        (255 * coloured(3), r"from [\d.]+ to 2\d\d: divide them by 255, or give uint8"),
        (2 * coloured(3) - 1, r"from -0.\d+ to 0.\d+: give \(x \+ 1\) / 2"),
        ((coloured(3) - 0.45) / 0.22, "undo their normalisation"),
        (coloured(3).long() + 200, "to 200: divide them by 255"),
        (coloured(3).log() * torch.nan, "hold NaN"),
        (iter([coloured(2), 255 * coloured(2)]), "divide them by 255"),
        (Items(255 * coloured(3)), "Item 0: .*divide them by 255"),
        ([coloured(1)[0], coloured(1)[0] * torch.nan], "Item 1: .*NaN"),
    ],
)
def test_bad_sources(encoder, source, said):
    with pytest.raises(InputError, match=said):
        embed(source, encoder)


def test_an_empty_folder_and_a_batch_of_none(encoder, tmp_path):
    with pytest.raises(InputError, match="No image in"):
        embed(tmp_path, encoder)
    with pytest.raises(InputError, match="batch must be 1"):
        embed(coloured(2), encoder, batch=0)
