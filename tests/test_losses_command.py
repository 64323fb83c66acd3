"""Losses and sentences in, a report out: the command, the folder, what is found, the page."""

import base64
import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from llm2loss_standins import ColourEncoder, coloured
from test_imports import HEAVY, loaded
from test_report import HOSTILE, Page
from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.llm2loss.answers import Answers, Comparisons
from visiondx.llm2loss.audit import Audit
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.examples import from_model, from_table
from visiondx.llm2loss.findings import LossFindings, ask_losses
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.labelled import check_order, read_labelled
from visiondx.llm2loss.nearest import nearest
from visiondx.models.target import Target
from visiondx.run import cli, notebooks, runs
from visiondx.show.losses_report import write_losses

KNOWS = Estimate(0.5, 0.4, 0.6, 100)
FAST = FitSettings(members=6, epochs=60, batch=16, learning_rate=0.03)


def write_images(folder, n, size=(8, 8)):
    """n PNGs of one colour each, their pixels exact: 00.png, ...; returns (n, 3) in [0, 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    bytes_ = (coloured(n, 1)[:, :, 0, 0] * 255).round().byte().numpy()
    for k, colour in enumerate(bytes_):
        Image.new("RGB", size, tuple(map(int, colour))).save(folder / f"{k:02d}.png")
    return torch.from_numpy(bytes_ / 255)


def table(tmp_path, n=90, planted=True):
    """A CSV whose loss is larger the redder an image is, or, not planted, noise."""
    colours = write_images(tmp_path / "photos", n)
    noise = torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    losses = torch.exp(2 * colours[:, 0] - colours[:, 2]) + 0.05 * noise if planted else noise.abs()
    frame = pd.DataFrame({"file": [f"{k:02d}" for k in range(n)], "ce": losses.numpy()})
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path / "mine.csv"


# ---------------------------------------------------------------- the command


@pytest.fixture
def called(monkeypatch, tmp_path):
    """The calls of ``run_notebook``, from a folder with a table, images, and a model."""
    found = []
    monkeypatch.setattr(runs, "run_notebook", lambda *given: found.append(given) or tmp_path)
    monkeypatch.chdir(tmp_path)
    table(tmp_path)
    (tmp_path / "my model.py").write_text("def load(): ...")
    (tmp_path / "few.csv").write_text("image,loss\n00,1\n01,2\n")
    (tmp_path / "bad.csv").write_text("image,loss\n" + "00,much\n" * 60)
    (tmp_path / "one.csv").write_text("image,loss\n" + "00,1\n" * 60)
    (tmp_path / "lost.csv").write_text("image,loss\n" + "".join(f"x{k},{k}\n" for k in range(60)))
    for name in ("cats", "dogs"):
        write_images(tmp_path / "two" / name, 30)
    return found


COLUMNS = ["--image-column", "file", "--loss-column", "ce", "--images", "photos"]


def test_a_table_and_sentences_become_the_notebooks_parameters(called, tmp_path, capsys):
    (tmp_path / "verdict.txt").write_text("Worse on the first.\n", "utf-8")
    (tmp_path / "w.pt").write_text("weights")
    how = ["--encoder", "ViT-B-32", "--encoder-weights", "w.pt", "--seed", "3"]
    words = ["--ask", "a dark one", "a bright one", "--compare", "a", "b", "--compare", "c", "d"]
    assert cli.main(["losses", "mine.csv", *words, *COLUMNS, *how]) == 0
    ((path, preset, parameters, out),) = called
    assert path == notebooks.ROOT / "notebooks" / "losses.ipynb"
    assert (preset, out) == ("embedded", notebooks.ROOT / "runs" / "losses" / "mine")
    assert parameters == {
        "name": "mine",
        "table": f"{tmp_path}/mine.csv",
        "image_folder": f"{tmp_path}/photos",
        "image_column": "file",
        "loss_column": "ce",
        "ask": ["a dark one", "a bright one"],
        "compare": [["a", "b"], ["c", "d"]],
        "attributes": [],
        "encoder": "ViT-B-32",
        "encoder_weights": f"{tmp_path}/w.pt",
        "seed": 3,
    }
    assert capsys.readouterr().out.endswith("report.html\n\nWorse on the first.\n")


def test_a_model_and_a_labelled_folder_become_the_notebooks_parameters(called, tmp_path):
    model = ["--model", "my model.py:load", "--images", "two"]
    how = ["--skip-unreadable", "--name", "m1", "--out", "there"]
    assert cli.main(["losses", *model, "--ask", "a hat", *how]) == 0
    _, _, parameters, out = called[0]
    assert out == "there"
    assert parameters == {
        "name": "m1",
        "model": f"{tmp_path}/my model.py:load",
        "image_folder": f"{tmp_path}/two",
        "ask": ["a hat"],
        "compare": [],
        "attributes": [],
        "skip_unreadable": True,
    }


MINE = ["mine.csv", *COLUMNS]
MODEL = ["--model", "my model.py:load", "--images"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*MINE], "There is no sentence"),
        ([*MINE, "--ask"], "There is no sentence"),
        ([*MINE, "--ask", "a hat", "A  hat "], "named twice, 'a hat' and 'A  hat '"),
        ([*MINE, "--ask", ""], "needs words"),
        ([*MINE, "--compare", "a hat", "A hat"], "the same sentence twice"),
        ([*MINE, "--compare", "a", "b", "--compare", "B", "a"], "compared twice"),
        ([*MINE, "--ask", "long words " * 40], "tokens and the encoder reads"),
        ([*MINE, "--compare", "long words " * 40, "a"], "tokens and the encoder reads"),
        ([*MINE, "--ask", "a", "--encoder", "ViT-B-23"], "No encoder 'ViT-B-23'"),
        ([*MINE, "--ask", "a", "--encoder", "ViT-B-32"], "needs weights"),
        ([*MINE, "--ask", "a", "--seed", "-1"], "'seed' must be a whole number"),
        ([*MINE, "--ask", "a", "--name", "../x"], "--name '../x'"),
        ([*MINE, "--ask", "a", "--preset", "big"], "Unknown preset 'big'"),
        (["--ask", "a"], "There are no losses"),
        (["--ask", "a", "mine.csv"], "name the table first"),
        (["gone.csv", "--ask", "a"], "No table at"),
        (["w.txt", "--ask", "a"], "is no table"),
        (["mine.csv", "--ask", "a"], "has no column 'image': it has file, ce; say which"),
        (["few.csv", "--images", "photos", "--ask", "a"], "There are 2 examples"),
        (["bad.csv", "--ask", "a"], "is no number in 60 of 60 rows"),
        (["one.csv", "--images", "photos", "--ask", "a"], "All 60 losses are 1: there is nothing"),
        (["lost.csv", "--images", "photos", "--ask", "a"], "60 of 60 images do not exist"),
        (["lost.csv", "--images", "nowhere", "--ask", "a"], "No folder of images"),
        (["mine.csv", "--ask", "a", *MODEL, "two"], "Both a table"),
        (["--model", "my model.py:load", "--ask", "a"], "needs images"),
        (["--model", "gone.py:load", "--images", "two", "--ask", "a"], "there is no file"),
        ([*MODEL, "photos", "--ask", "a"], "lie in no class's folder"),
        ([*MODEL, "two/cats", "--ask", "a"], "lie in no class's folder"),
        ([*MODEL, "nowhere", "--ask", "a"], "No folder of images"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_a_kernel_starts(called, capsys, arguments, named):
    assert cli.main(["losses", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not called


def test_a_refusal_needs_no_torch(tmp_path):
    path = table(tmp_path)
    given = ["losses", str(path), "--ask", "a", "--image-column", "file", "--loss-column", "ce"]
    wrong = f"from visiondx.run import cli\nassert cli.main({given}) == 2"  # paths start elsewhere
    assert not loaded(wrong) & (HEAVY | {"numpy"})


# ---------------------------------------------------------------- a table


def test_what_was_planted_in_a_table_is_found(tmp_path):
    encoder = ColourEncoder()
    examples = from_table(
        table(tmp_path), encoder, images=tmp_path / "photos", image="file", loss="ce"
    )
    pairs = [["red", "blue"], ["Blue", "red green"]]
    found = ask_losses(
        examples.data, encoder, ["blue", "red"], pairs, ["red", "green"], settings=FAST
    )
    assert found.comparisons.verdict == ["worse on the first", "worse on the second"]
    assert found.answers.verdict == ["not the largest", "largest"]
    assert found.audit.verdict[0] == "worse with it"
    first, *rest = found.verdict.splitlines()
    assert first.startswith("The loss model knows more than chance")
    assert "“red” against “blue”: worse on the first." in rest
    assert "is that of “red”, clearly above all others; the smallest is that of “blue”." in rest[2]
    # the nearest images, by hand: 10 of 90, those of the largest cosine
    assert found.nearest.sentences == ("blue", "red", "red green", "green")
    x = examples.data.embeddings
    cosine = x @ encoder.embed_texts(["red"])[0]
    rows = cosine.argsort(descending=True)[:10]
    assert set(found.nearest.rows[1].tolist()) == set(rows.tolist())
    assert found.nearest.estimates["red"].value == pytest.approx(
        float(examples.data.losses[rows].mean()), rel=1e-5
    )
    assert found.metrics()["compare.red | blue"].low > 0
    found.save(tmp_path / "out")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"answers.csv", "comparisons.csv", "audit.csv", "nearest.csv", "verdict.txt"} <= made
    pictures = examples.pictures(torch.tensor([4, 2]))
    assert pictures.shape == (2, 3, 128, 128)
    red = Image.open(tmp_path / "photos" / "04.png").getpixel((0, 0))
    assert (pictures[0, :, 0, 0] * 255).round().tolist() == list(red)


def test_noise_says_nothing(tmp_path):
    encoder = ColourEncoder()
    path = table(tmp_path, planted=False)
    data = from_table(path, encoder, images=tmp_path / "photos", image="file", loss="ce").data
    with pytest.warns(UserWarning, match="no more than chance"):
        found = ask_losses(data, encoder, compare=[["red", "blue"]], settings=FAST)
    assert found.verdict.startswith("This loss model knows no more than chance")
    assert found.verdict.count("\n") == 0
    assert found.answers is None


def test_where_the_nearest_images_say_the_opposite_the_verdict_says_so(tmp_path):
    encoder = ColourEncoder()
    data = from_table(
        table(tmp_path), encoder, images=tmp_path / "photos", image="file", loss="ce"
    ).data
    found = ask_losses(data, encoder, compare=[["red", "blue"]], settings=FAST)
    assert "the other way round" not in found.verdict
    turned = Comparisons(
        ("red",), ("blue",), -found.comparisons.members, "ranker", "mean", 0, found.model.skill
    )
    wrong = LossFindings(found.model, turned, None, None, found.nearest)
    assert wrong.verdict.splitlines()[-1].endswith("the other way round.")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "There is no sentence"),
        ({"ask": "red"}, "must be a list"),
        ({"compare": ["red", "blue"]}, "takes pairs"),
        ({"compare": [["red", "blue", "green"]]}, "takes pairs"),
    ],
)
def test_a_question_that_is_none_is_refused(given, named):
    with pytest.raises(InputError, match=named):
        ask_losses(None, None, **given)


# ---------------------------------------------------------------- words that are not known

BOTH = torch.tensor([[2.0, 0.0, 5.0], [2.2, 0.1, 5.1], [1.8, -0.1, 4.9], [2.0, 0.0, 5.0]])
NONE = ((), (), ("qwxzk",))


def test_of_unknown_words_nothing_is_said():
    words = ("red", "blue", "a qwxzk")
    answers = Answers(words, BOTH, "ranker", "mean", 0, KNOWS, NONE)
    assert answers.verdict == ["largest", "not the largest", "unknown words"]
    first, second = answers.said
    assert "is that of “red”, clearly above all others" in first
    assert second == "The encoder does not know “qwxzk”: nothing can be said about such words."
    assert answers.to_frame()["verdict"].tolist() == answers.verdict
    audit = Audit(words, BOTH, 0 * BOTH[:, :1] + BOTH[:, 1:2], 1, "mean", 0, KNOWS, NONE)
    assert audit.verdict[0] == "worse with it"
    assert audit.verdict[2] == "unknown words"
    assert not any("a qwxzk" in line for line in audit.said)
    assert audit.said[-1] == second
    pair = Comparisons(("red",), ("a qwxzk",), BOTH[:, :1], "ranker", "mean", 0, KNOWS, (NONE[2],))
    assert pair.said == ["“red” against “a qwxzk”: unknown words.", second]


def test_the_largest_is_named_surely_only_where_the_members_agree():
    close = torch.tensor([[2.0, 1.9, 0.0], [1.0, 1.2, 0.0], [3.0, 2.9, 0.0], [2.0, 2.1, 0.0]])
    found = Answers(("a", "b", "c"), close, "ranker", "mean", 0, KNOWS)
    assert found.verdict[:2] == ["perhaps the largest"] * 2
    assert "not clearly above “a”" in found.said[0]
    alone = Answers(("a",), close[:, :1], "ranker", "mean", 0, KNOWS)
    assert alone.said[0].startswith("“a”: rank score (larger: worse) 2.00, 95 % interval")


# ---------------------------------------------------------------- a model and a labelled folder


class Colours(nn.Module):
    """A logit for each channel's mean, times 4, in an order."""

    def __init__(self, order=(0, 1, 2)):
        super().__init__()
        self.order = list(order)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        return self.scale * images.mean((2, 3))[:, self.order]


def labelled_folder(tmp_path, names=("blue", "green", "red"), n=60, size=(8, 8)):
    """Images sorted by their strongest channel, and what they are: (n, 3) colours by path."""
    colours = write_images(tmp_path / "all", n, size)
    found = {}
    for k, colour in enumerate(colours):
        channel = int(colour.argmax())
        name = {0: "red", 1: "green", 2: "blue"}[channel]
        if name not in names:
            continue
        home = tmp_path / "photos" / name
        home.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / f"{k:02d}.png").rename(home / f"{k:02d}.png")
        found[f"{name}/{k:02d}.png"] = colour
    return tmp_path / "photos", found


def cross_entropy(colour, answer):
    """By hand, in float64: -log of the softmax of 4 c at the answer's channel."""
    logits = [4 * float(c) for c in colour]
    return math.log(sum(math.exp(z) for z in logits)) - logits[answer]


@pytest.mark.parametrize("named", [True, False])
def test_the_losses_are_the_cross_entropies_that_one_computes_by_hand(tmp_path, named):
    folder, colours = labelled_folder(tmp_path)
    channel = {"red": 0, "green": 1, "blue": 2}
    if named:  # in the model's own order, which is not the folders'
        target = Target(Colours(), "multiclass", ("Red", "green", "blue"))
    else:
        target = Target(Colours((2, 1, 0)))  # as the folders are sorted
    target.train()
    found = read_labelled(target, folder, ColourEncoder(), batch=7)
    assert found.named is named
    assert found.classes == ("blue", "green", "red")
    assert found.accuracy == 1.0
    assert set(found.data.names) == set(colours)
    by_hand = [cross_entropy(colours[n], channel[n.split("/")[0]]) for n in found.data.names]
    np.testing.assert_allclose(found.data.losses.numpy(), by_hand, atol=2e-6)
    assert target.module.training  # as it was


def test_one_logit_and_two_folders(tmp_path):
    class Redder(nn.Module):
        def forward(self, images):
            red, _, blue = images.mean((2, 3)).T
            return 3 * (red - blue)

    folder, colours = labelled_folder(tmp_path, ("blue", "red"), 120)
    found = read_labelled(Target(Redder().eval()), folder, ColourEncoder())
    sign = {"blue": 1, "red": -1}  # absent is the first folder
    by_hand = [
        math.log1p(math.exp(sign[n.split("/")[0]] * 3 * float(colours[n][0] - colours[n][2])))
        for n in found.data.names
    ]
    np.testing.assert_allclose(found.data.losses.numpy(), by_hand, atol=2e-6)


def test_a_bare_module_of_a_file_and_a_subset_of_its_labels(tmp_path):
    folder, _ = labelled_folder(tmp_path)
    code = (
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def forward(self, x): return x.mean((2, 3)).flip(1)\n"
        "def load(): return Net()\n"
    )
    (tmp_path / "mine.py").write_text(code)
    found = from_model(f"{tmp_path}/mine.py:load", folder, ColourEncoder())
    assert found.accuracy == 1.0
    assert "outputs are taken in the folders' order, 0 blue, 1 green, 2 red" in found.about
    wide = Target(Colours((0, 0, 1, 2)), "multiclass", ("grey", "red", "green", "blue"))
    assert read_labelled(wide, folder, ColourEncoder()).accuracy == 1.0


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (lambda: Target(Colours((0, 1, 2))), "right on .* in another order on 100%"),
        (lambda: Target(Colours((0, 1))), r"returned \(1, 2\) .* has 3 classes"),
        (lambda: Target(Colours(), "multiclass", ("a", "b", "c")), "'blue' is none of .* 3 labels"),
        (lambda: Target(Colours(), "segmentation", ("a", "b")), "no class to be right about"),
        (lambda: Target(nn.Sequential(Colours((2, 1, 0)), nn.Softmax(1))), "probabilities=True"),
        (lambda: Target(nn.Linear(5, 3)), "failed on an image of 8 x 8 pixels"),
    ],
)
def test_a_model_that_does_not_fit_the_folder_is_refused(tmp_path, target, named):
    folder, _ = labelled_folder(tmp_path)
    encoder = ColourEncoder()
    with pytest.raises(InputError, match=named):
        read_labelled(target(), folder, encoder)


def test_images_of_several_sizes_need_the_models_size(tmp_path):
    folder, _ = labelled_folder(tmp_path)
    Image.new("RGB", (12, 9), "red").save(folder / "red" / "wide.png")
    encoder = ColourEncoder()
    with pytest.raises(InputError, match="8 x 8 and 9 x 12"):
        read_labelled(Target(Colours((2, 1, 0))), folder, encoder)
    assert encoder.seen == 0  # before any long work
    assert len(read_labelled(Target(Colours((2, 1, 0)), size=8), folder, encoder).data) == 61


def test_a_poor_model_is_not_taken_for_a_wrong_order():
    random = torch.Generator().manual_seed(0)
    answers, predicted = torch.randint(10, (2, 60), generator=random)
    check_order(answers, predicted, list("abcdefghij"))
    check_order(answers, torch.zeros_like(answers), list("abcdefghij"))
    swapped = torch.arange(10).repeat(20)
    with pytest.raises(InputError, match="the folder 'a' is mostly the place of 'b'"):
        check_order(swapped, torch.tensor([1, 0, *range(2, 10)])[swapped], list("abcdefghij"))


# ---------------------------------------------------------------- the report


def test_the_report_says_what_was_found_and_escapes_words(tmp_path):
    encoder = ColourEncoder()
    data = from_table(
        table(tmp_path), encoder, images=tmp_path / "photos", image="file", loss="ce"
    ).data
    found = ask_losses(
        data, encoder, ["red", "blue <b>"], [["red", "blue"]], ["red"], settings=FAST
    )
    path = write_losses(
        found,
        tmp_path,
        title=f"Title {HOSTILE}",
        losses=data.losses,
        pictures=lambda rows: coloured(90, 1)[rows],
        asked={"Run": HOSTILE},
        truth=[("Sentences", pd.DataFrame({"Sentence": [HOSTILE], "True mean loss": [0.5]}))],
    )
    page = Page(path.read_text("utf-8"))
    assert "script" not in [tag for tag, _ in page.tags]
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert page.text.count(HOSTILE) == 4  # title twice, asked, truth
    links = [a["href"].removeprefix("#") for tag, a in page.tags if tag == "a" and "href" in a]
    anchors = {a["id"] for tag, a in page.tags if tag == "section"}
    assert {link for link in links if not link.startswith("data:")} == anchors
    figures = [a["alt"] for a in page.images() if not a["alt"].startswith("An image near")]
    assert len(figures) == 4
    assert figures[0].startswith("Which of two sentences is worse. red — against — blue +")
    assert len(page.images()) == 4 + 6 * len(found.nearest.sentences)
    loss = float(found.nearest.losses[0, 0])
    assert f"An image near to “red”, loss {loss:.2f}" in [a["alt"] for a in page.images()]
    (uri,) = (a["href"] for _, a in page.tags if a.get("download") == "compared.csv")
    read = pd.read_csv(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
    assert read["verdict"].tolist() == ["worse on the first"]
    assert "worse on the first" in page.text
    assert "LLM2Loss: Leveraging Language Models" in page.text


def test_the_nearest_of_gibberish_say_that_they_mean_nothing():
    class Reads(ColourEncoder):
        def unknown_words(self, texts):
            return [[w for w in text.split() if w == "qwxzk"] for text in texts]

    encoder, colours = Reads(), coloured(60)
    data = LossData(encoder.embed_images(colours), colours.mean((1, 2, 3)), encoder.fingerprint)
    found = nearest(data, encoder, ["red", "qwxzk red"])
    assert found.to_frame()["unknown"].tolist() == ["", "qwxzk"]
    assert "“red”" in found.said[0]
    assert "qwxzk red" not in found.said[0]
    assert "does not know “qwxzk”" in found.said[1]
