"""Embeddings and losses from arrays, tables and models; what is refused, in one sentence."""

import math
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from llm2loss_standins import ColourEncoder, coloured, redness
from visiondx.core.errors import InputError
from visiondx.llm2loss.cache import Embedded, embed
from visiondx.llm2loss.checks import checked
from visiondx.llm2loss.data import LossData, read_arrays, read_table, run_model
from visiondx.llm2loss.modality import modality_gap, placed, project


def changed(losses, rows, value):
    losses = losses.clone()
    losses[rows] = value
    return losses


X, L = torch.randn(60, 4), torch.rand(60)


@pytest.mark.parametrize(
    ("embeddings", "losses", "said"),
    [
        (X, L[:59], "There are 60 embeddings and 59 losses: give one loss for each image"),
        (X[0], L, r"\(N, D\) and losses \(N,\), got \(4,\) and \(60,\)"),
        (X, changed(L, [7], torch.nan), r"loss is NaN or infinite in 1 of 60 rows \(7\)"),
        (X, changed(L, range(9), torch.inf), r"9 of 60 rows \(0, 1, 2, 3, 4, ...\): drop"),
        (
            X,
            torch.full((60,), torch.nan),
            "loss is NaN or infinite in all 60 rows: compute it anew",
        ),
        (changed(X, [3], torch.nan), L, r"embedding is NaN or infinite in 1 of 60 rows \(3\)"),
        (X[:49], L[:49], "There are 49 examples: an ensemble needs 50"),
        (X, torch.ones(60), "All 60 losses are 1: there is nothing to learn"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(embeddings, losses, said):
    with pytest.raises(InputError, match=said):
        read_arrays(embeddings, losses)


def test_arrays_and_files_of_arrays(tmp_path):
    np.save(tmp_path / "x.npy", X.double().numpy())
    np.save(tmp_path / "loss.npy", L.numpy())
    found = read_arrays(tmp_path / "x.npy", str(tmp_path / "loss.npy"), encoder="abc")
    torch.testing.assert_close(found.embeddings, X)
    torch.testing.assert_close(found.losses, L, rtol=0, atol=0)
    assert found.encoder == "abc"
    assert read_arrays(X.tolist(), L.tolist()).losses.dtype == torch.float32
    with pytest.raises(InputError, match=r"No file of embeddings at \S*gone.npy"):
        read_arrays(tmp_path / "gone.npy", L)
    assert read_arrays(X, L, ColourEncoder()).encoder == ColourEncoder().fingerprint


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (["high"] * 60, "The losses are text, not numbers: give"),
        (np.array(["0.5"] * 60), "The losses are text, not numbers"),
        (np.array([None] * 60), "The losses are objects, not numbers"),
        (np.ones(60) * 1j, "The losses are complex"),
        (torch.ones(60) * 1j, "The losses are complex"),
        ([[1, 2], [3]] * 30, r"losses are no array \(.*\): give an array of numbers\.$"),
        ({"a.png": 1.0}, "losses are objects"),
    ],
)
def test_what_holds_no_numbers(losses, said):
    with pytest.raises(InputError, match=said):
        read_arrays(X, losses)


def write_objects(path):
    np.save(path, np.array([{}] * 60), allow_pickle=True)


def write_truncated(path):
    np.save(path, L.numpy())
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    "write",
    [
        write_objects,
        write_truncated,
        lambda path: path.write_bytes(pickle.dumps(L.tolist())),
        lambda path: path.write_text("0.5"),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path.open("wb"), losses=L.numpy()),
    ],
)
def test_files_of_anything_else_are_refused_and_no_pickle_is_advised(tmp_path, write):
    path = tmp_path / "loss.npy"
    write(path)
    with pytest.raises(InputError, match=r"loss.npy cannot be read as a .*np.save\.$") as said:
        read_arrays(X, path)
    assert "pickle" not in str(said.value)


@pytest.fixture
def table(tmp_path):
    """Sixty pictures beside a table of their losses."""
    (tmp_path / "pictures").mkdir()
    names, images = [], coloured(60)
    for i, image in enumerate((255 * images).round().byte()):
        names.append(f"pictures/{i:02d}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / names[-1])
    frame = pd.DataFrame({"image": names, "loss": images.mean((1, 2, 3)).numpy(), "other": 1})
    frame.to_csv(tmp_path / "losses.csv", index=False)
    return tmp_path / "losses.csv"


def test_a_table_of_paths_and_losses(table):
    encoder, frame = ColourEncoder(), pd.read_csv(table)
    found = read_table(table, encoder)
    assert list(found.names) == frame["image"].tolist()
    torch.testing.assert_close(found.losses, torch.tensor(frame["loss"], dtype=torch.float32))
    expected = encoder.embed_images((255 * coloured(60)).round() / 255)
    torch.testing.assert_close(found.embeddings, expected)
    assert found.encoder == encoder.fingerprint
    renamed = table.with_name("renamed.csv")
    frame.rename(columns={"image": "file", "loss": "cost"}).to_csv(renamed, index=False)
    again = read_table(renamed, encoder, image="file", loss="cost")
    torch.testing.assert_close(again.losses, found.losses)


def rows(form, separator=",", header="image,loss", decimal="."):
    """A table of sixty images: ``form`` gives the name of an image by its number."""
    lines = [header.replace(",", separator)]
    lines += [form(i) + separator + f"{i / 8:.3f}".replace(".", decimal) for i in range(60)]
    return "\n".join(lines) + "\n"


def name(i):
    return f"pictures/{i:02d}.png"


DIALECTS = {
    "semicolons": rows(name, ";"),
    "tabs": rows(name, "\t"),
    "a byte-order mark": "\ufeff" + rows(name),
    "quotes": rows(lambda i: f'"{name(i)}"', header='"image","loss"'),
    "spaces": rows(lambda i: f'"{name(i)}"', ", "),
    "Windows line ends": rows(name).replace("\n", "\r\n"),
    "names without suffixes": rows(lambda i: name(i)[:-4]),
    "a comma in another column's name": rows(
        lambda i: f"1;{name(i)}", ";", "a b,image,loss"
    ).replace("a b", "a, b"),
    "decimal commas": rows(name, ";", decimal=","),
    "an empty last field": rows(name).replace("\n", ",\n"),
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_of_csv(table, text):
    table.write_bytes(text.encode())
    found = read_table(table, ColourEncoder())
    torch.testing.assert_close(found.losses, torch.arange(60) / 8, atol=6e-4, rtol=0)
    expected = ColourEncoder().embed_images((255 * coloured(60)).round() / 255)
    torch.testing.assert_close(found.embeddings, expected)


def test_names_that_look_like_numbers_or_nothing(table):
    """000000 is a name; so are NA and null, with a suffix or without."""
    pictures = table.parent / "pictures"
    names = [f"{i:06d}" for i in range(58)] + ["NA", "null"]
    whole = [name + ".png" * (i % 2) for i, name in enumerate(names)]
    for path, name in zip(sorted(pictures.iterdir()), whole):
        path.rename(pictures / name)
    table = table.rename(pictures / "losses.csv")
    for given in (names, whole):
        table.write_text(rows(lambda i, given=given: given[i]))
        found = read_table(table, ColourEncoder())
        assert list(found.names) == given
        expected = ColourEncoder().embed_images((255 * coloured(60)).round() / 255)
        torch.testing.assert_close(found.embeddings, expected)
    table.write_text(rows(str))  # what a spreadsheet makes of 000000
    with pytest.raises(InputError, match=r"60 of 60 images do not exist, such as \S*pictures/0:"):
        read_table(table, ColourEncoder())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (rows(name).replace(".png,", ".png,high"), r"in 60 of 60 rows \(0: .*name another column"),
        (rows(name).replace("1.000", ""), r"no number in 1 of 60 rows \(8: ''\)"),
        (rows(name).replace("1.000", '"1,000"'), r"8: '1,000'\): write numbers with a decimal po"),
        (rows(name, decimal=","), r"Row 0 of \S* has 3 fields and the header 2: quote what ho"),
        (rows(name, ";").replace("1.000", "1,5"), r"8: '1,5'"),
        (rows(lambda i: name(i) * (i != 3)), r"1 of 60 rows name no image \(3\)"),
        (rows(name, ";", "file,loss"), "no column 'image': it has file, loss"),
        ("image,loss\n", "There are 0 examples"),
        ("", "losses.csv cannot be read: it is empty"),
        ("a\0b", "losses.csv"),
    ],
)
def test_tables_that_are_not_guessed_at(table, text, said):
    table.write_text(text)
    encoder = ColourEncoder()
    with pytest.raises(InputError, match=said):
        read_table(table, encoder)
    assert encoder.seen == 0


def test_a_table_that_is_not_utf_8(table):
    table.write_bytes(rows(name).encode("utf-16"))
    with pytest.raises(InputError, match=r"losses.csv cannot be read: save it as UTF-8 text"):
        read_table(table, ColourEncoder())


def test_links_to_nothing_in_a_table(table):
    (table.parent / "pictures" / "03.png").unlink()
    (table.parent / "pictures" / "03.png").symlink_to("gone.png")
    with pytest.raises(InputError, match=r"1 of 60 images cannot be read: \S*03.png \(No such"):
        read_table(table, ColourEncoder())
    assert len(read_table(table, ColourEncoder(), skip_unreadable=True)) == 59


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Images 0 to 119 in a folder, embedded; sorted by path they are 0, 1, 10, 100, 101, ..."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate((255 * coloured(120)).round().byte()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return embed(folder, ColourEncoder())


def test_losses_of_a_folder_are_paired_by_name(numbered, tmp_path):
    losses = coloured(120).mean((1, 2, 3))  # of image 0, 1, 2, ...
    names = [f"{i}.png" for i in range(120)]
    folder = Path(numbered.folder)
    for found in (
        LossData.of(numbered, dict(zip(names, losses.tolist()))),
        LossData.of(numbered, losses.numpy(), names),
        LossData.of(numbered, losses, range(120)),
        LossData.of(numbered, losses.flip(0), [f"{folder.name}/{name}" for name in names[::-1]]),
        LossData.of(numbered, losses, [str(folder / name) for name in names]),
    ):
        assert found.encoder == numbered.encoder
        numbers = [int(Path(name).stem) for name in found.names]
        assert numbers[:4] == [0, 1, 10, 100]
        torch.testing.assert_close(found.losses, losses[numbers])
    numbered.save(tmp_path)
    for embedded in (numbered, Embedded.load(tmp_path)):
        with pytest.raises(InputError, match=r"sorted by path \(0.png, 1.png, 10.png, ...\)"):
            LossData.of(embedded, losses)


def test_losses_of_an_order_of_its_own(tmp_path):
    images, losses = coloured(60), torch.rand(60)
    found = LossData.of(embed(images, ColourEncoder()), losses.numpy())
    torch.testing.assert_close(found.losses, losses, rtol=0, atol=0)
    paths = [tmp_path / f"{i}.png" for i in range(60)]
    for path, image in zip(paths, (255 * images).byte()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    paths[5].write_bytes(b"")
    some = embed(paths, ColourEncoder(), skip_unreadable=True)
    kept = [i for i in range(60) if i != 5]
    for found in (
        LossData.of(some, losses),
        LossData.of(some, dict(zip(map(str, paths), losses.tolist()))),  # one of a lost image
        LossData.of(some, losses[kept], [paths[i] for i in kept]),
    ):
        torch.testing.assert_close(found.losses, losses[kept])
    with pytest.raises(InputError, match="There are 60 images and 59 losses"):
        LossData.of(some, losses[kept])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (range(119), "There are 119 names and 120 losses"),
        ([*range(119), "x.png"], "The loss of 'x.png' belongs to no image: name each"),
        ([*range(119), "7"], r"Image \S*/7.png has 2 losses: give it one"),
        ([*range(119), "mages/119.png"], "'mages/119.png' belongs to no image"),
    ],
)
def test_names_that_pair_nothing(numbered, names, said):
    with pytest.raises(InputError, match=said):
        LossData.of(numbered, torch.rand(120), names)


def test_images_of_one_name_in_several_folders(tmp_path):
    folders = ("a", "b", "c/a")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / folder / f"{i}.png")
    found = embed(tmp_path, ColourEncoder())
    losses = {f"{folder}/{i}": i + 0.1 * len(folder) for folder in folders for i in range(20)}
    by_name = dict(zip(found.names, LossData.of(found, losses).losses.tolist()))
    assert by_name[str(tmp_path / "a/7.png")] == pytest.approx(7.1)  # not that of c/a
    assert by_name[str(tmp_path / "c/a/7.png")] == pytest.approx(7.3)
    del losses["b/3"]
    with pytest.raises(InputError, match=r"1 of 60 images have no loss, such as \S*/b/3.png"):
        LossData.of(found, losses)
    with pytest.raises(InputError, match=r"The loss of '3.png' belongs to 3 images, such as"):
        LossData.of(found, {"3.png": 1.0})


def test_a_parquet_table(table):
    pytest.importorskip("pyarrow", reason="pandas reads Parquet through pyarrow")
    pd.read_csv(table).to_parquet(table.with_suffix(".parquet"))
    found = read_table(table.with_suffix(".parquet"), ColourEncoder())
    torch.testing.assert_close(found.losses, read_table(table, ColourEncoder()).losses)


def test_a_table_without_its_reader(table, monkeypatch):
    table.with_suffix(".parquet").write_bytes(b"PAR1")

    def absent(path):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", absent)
    with pytest.raises(InputError, match="pip install pyarrow"):
        read_table(table.with_suffix(".parquet"), ColourEncoder())


def test_images_of_a_table_that_cannot_be_read_take_their_losses_along(table):
    (table.parent / "pictures" / "03.png").write_bytes(b"")
    with pytest.raises(InputError, match="1 of 60 images cannot be read"):
        read_table(table, ColourEncoder())
    found = read_table(table, ColourEncoder(), skip_unreadable=True)
    assert len(found) == 59
    assert found.names[3] == "pictures/04.png"
    assert found.losses[3] == pd.read_csv(table)["loss"].astype("float32")[4]


def test_bad_tables(table, tmp_path):
    encoder = ColourEncoder()
    with pytest.raises(InputError, match="no column 'cost': it has image, loss, other"):
        read_table(table, encoder, loss="cost")
    with pytest.raises(InputError, match="No table at"):
        read_table(tmp_path / "gone.csv", encoder)
    with pytest.raises(InputError, match=r"give a .csv or .parquet"):
        read_table(tmp_path / "x.xlsx", encoder)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv cannot be read"):
        read_table(tmp_path / "empty.csv", encoder)
    frame = pd.read_csv(table)
    frame["loss"] = frame["loss"].astype(object)
    frame.loc[5, "loss"] = "high"
    frame.to_csv(table, index=False)
    with pytest.raises(InputError, match=r"no number in 1 of 60 rows \(5: 'high'\): .*drop"):
        read_table(table, encoder)
    with pytest.raises(InputError, match=r"'image' .* 60 of 60 rows .* name another column"):
        read_table(table, encoder, loss="image")
    assert encoder.seen == 0  # all of it before long work
    frame.loc[5, "loss"], frame.loc[7, "image"] = 1.0, "pictures/gone.png"
    frame.to_csv(table, index=False)
    with pytest.raises(InputError, match=r"1 of 60 images do not exist, such as \S*gone.png"):
        read_table(table, encoder)


class Classifier(nn.Module):
    """Says how red an image is; its dropout shows whether it is in eval mode."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images):
        red = self.dropout(images)[:, 0].mean((1, 2))
        return torch.stack((-red, red), 1).requires_grad_()


def test_a_model_and_its_loss(tmp_path):
    images, answers = coloured(64), torch.arange(64) % 2
    loss, encoder, model = nn.CrossEntropyLoss(reduction="none"), ColourEncoder(), Classifier()
    batches = list(zip(images.split(20), answers.split(20)))
    found = run_model(model, loss, batches, encoder, tmp_path)
    assert model.training  # as it was
    red = images[:, 0, 0, 0]
    by_hand = torch.log1p(torch.exp(torch.where(answers == 1, -2 * red, 2 * red)))
    torch.testing.assert_close(found.losses, by_hand)
    torch.testing.assert_close(found.embeddings, ColourEncoder().embed_images(images))
    assert not found.losses.requires_grad
    run_model(model, loss, batches, encoder, tmp_path)
    assert encoder.seen == 64
    with pytest.raises(InputError, match=r"loss of 20 images has shape \(\), not \(20,\)"):
        run_model(model, nn.CrossEntropyLoss(), batches, encoder)


class Frozen(Classifier):
    """A batch norm that stays in eval mode inside a net in train mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3).eval()

    def forward(self, images):
        return super().forward(self.norm(images))


@pytest.mark.parametrize("method", [False, True])
def test_each_part_of_a_model_keeps_its_mode(method):
    model = Frozen()
    asked = model.forward if method else model
    batches = [(coloured(64), torch.zeros(64, dtype=int))]
    loss = nn.CrossEntropyLoss(reduction="none")
    first, second = (run_model(asked, loss, batches, ColourEncoder()).losses for _ in range(2))
    assert torch.equal(first, second)  # its dropout slept
    assert (model.training, model.dropout.training, model.norm.training) == (True, True, False)
    assert model.norm.num_batches_tracked == 0
    with pytest.raises(InputError, match="reduction='none'"):
        run_model(asked, nn.CrossEntropyLoss(), batches, ColourEncoder())
    assert (model.training, model.norm.training) == (True, False)


def test_a_model_without_modes_is_run_as_it_is():
    images = coloured(64)
    frozen = torch.export.export(Classifier().eval(), (images,)).module()
    answers = torch.zeros(64, dtype=int)
    loss = nn.CrossEntropyLoss(reduction="none")
    found = run_model(frozen, loss, [(images, answers)], ColourEncoder())
    torch.testing.assert_close(found.losses, loss(Classifier().eval()(images), answers))


def test_rows_and_saving(tmp_path):
    data = LossData(X, L, "abc", tuple(f"{i}.png" for i in range(60)))
    part = data[torch.arange(59, -1, -1)]
    assert part.names[0] == "59.png"
    assert part.losses[0] == L[59]
    assert len(data[L >= 0]) == 60
    data.save(tmp_path)
    again = LossData.load(tmp_path)
    torch.testing.assert_close(again.losses, L, rtol=0, atol=0)
    assert (again.names, again.encoder) == (data.names, "abc")
    assert pd.read_csv(tmp_path / "losses.csv")["image"].tolist() == list(data.names)
    assert data.plot("losses").axes
    with pytest.raises(InputError, match="No losses in"):
        LossData.load(tmp_path / "gone")
    path = tmp_path / "losses.safetensors"
    for damage in (b"", path.read_bytes()[:-1]):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"losses.safetensors is damaged .*LossData.save"):
            LossData.load(tmp_path)
    with pytest.raises(InputError, match=r"needs tensors .* got ndarray and list: read_arrays"):
        LossData(X.numpy(), L.tolist())


def test_centring_removes_what_a_modality_shares():
    x = torch.randn(40, 6) + torch.tensor([3.0, 0, 0, 0, 0, 0])
    unit = nn.functional.normalize(x, dim=1)
    plain, centred = placed(x, None), placed(x, unit.mean(0))
    torch.testing.assert_close(plain, unit * 6**0.5)
    torch.testing.assert_close(centred.norm(dim=1), torch.full((40,), 6**0.5))
    assert centred.mean(0).norm() < 0.3 * plain.mean(0).norm()


def test_the_modality_gap_by_hand():
    images = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    texts = torch.tensor([[-1.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    gap = modality_gap(images, texts)
    # means (1/2, 1/2) and (-2/3, 1/3)
    assert gap.distance == pytest.approx(((7 / 6) ** 2 + (1 / 6) ** 2) ** 0.5)
    assert gap.image_cosine == pytest.approx(0)
    assert gap.text_cosine == pytest.approx(1 / 3)  # 1, 0, 0
    assert gap.cross_cosine == pytest.approx(-1 / 3 + 1 / 6)
    assert gap.to_frame().loc[0, "images"] == 2
    assert gap.plot().axes
    data = redness()
    apart = modality_gap(data.embeddings, ColourEncoder().embed_texts(["red", "blue"]))
    assert apart.distance > 1
    with pytest.raises(InputError, match="two images and two texts, got 2 and 1"):
        modality_gap(images, texts[:1])
    with pytest.raises(InputError, match=r"\(2, 2\) and \(3, 1\)"):
        modality_gap(images, texts[:, :1])


def test_a_projected_text_is_a_weighted_mean_of_images():
    memory = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    texts = torch.tensor([[1.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
    found = project(texts, memory, temperature=0.5)
    p = 1 / (1 + math.exp(-0.6 / 0.5))  # cosines 0.6 and 0
    expected = torch.tensor([[0.5, 0.5, 0.0], [p, 1 - p, 0.0]])
    torch.testing.assert_close(found, expected)


def test_embeddings_of_an_unknown_encoder_are_not_asked_by_one():
    encoder = ColourEncoder()
    assert checked(encoder, encoder.fingerprint) == encoder.fingerprint
    assert checked(None, None) is None
    with pytest.raises(InputError, match="Nobody says which encoder made the embeddings: name it"):
        checked(encoder, None)
    with pytest.raises(InputError, match="another encoder"):
        checked(encoder, ColourEncoder("second").fingerprint)
