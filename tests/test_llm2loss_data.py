"""Embeddings and losses from arrays, tables and models; what is refused, in one sentence."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from llm2loss_standins import ColourEncoder, coloured, redness
from visiondx.core.errors import InputError
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
    with pytest.raises(InputError, match=r"gone.npy cannot be read as a .npy file"):
        read_arrays(tmp_path / "gone.npy", L)
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy cannot be read"):  # a pickle
        read_arrays(X, tmp_path / "objects.npy")


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
    with pytest.raises(InputError, match=r"1 of 60 rows \(5\)"):
        read_table(table, encoder)
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
