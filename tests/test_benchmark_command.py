"""Any model on images by shift and class: answered once, resumed, refused; and the command."""

import json
import os

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision import models as torchvision_models

from test_imports import HEAVY, loaded
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces import answers as answers_module
from visiondx.dataset_interfaces.answers import ask_models, check_models
from visiondx.dataset_interfaces.examples import examples
from visiondx.dataset_interfaces.measure import measure
from visiondx.dataset_interfaces.models import Model, open_model, short_names
from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.models.pixels import rgb
from visiondx.models.target import Target
from visiondx.run import cli, notebooks, runs

# ---------------------------------------------------------------- what models answer

MINE = """
import torch
from torch import nn
from visiondx.models.target import Target

class Colours(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        return self.scale * images.mean((2, 3))[:, self.order]

def load():
    return Target(Colours([2, 0, 1]), "multiclass", ["Blue", "red", "grass_green"])

def sized():
    return Target(Colours([2, 0, 1]), "multiclass", ["Blue", "red", "grass_green"], size=4)

def redder():
    return Target(Colours([2, 0]), "binary", ["blue", "red"])

def bare():
    return Colours([0, 1, 2])

def wrong():
    return Target(Colours([0, 1, 2]), "multiclass", ["blue", "reed", "grass green"])

def narrow():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    return Target(net, "multiclass", ["blue", "red", "grass green"])
"""
COLOURS = {"red": (200, 60, 50), "blue": (40, 50, 190), "grass green": (60, 180, 70)}


@pytest.fixture
def home(tmp_path):
    """A folder of 8 px images, three of each class; under "odd", the second is of another class."""
    (tmp_path / "mine.py").write_text(MINE)
    for shift in ("base", "odd"):
        for name, colour in COLOURS.items():
            for k in range(3):
                own = COLOURS["red"] if shift == "odd" and k == 1 else colour
                path = tmp_path / "images" / shift / name / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), own).save(path)
    return tmp_path


def test_each_image_is_answered_once_and_the_answers_are_kept(home, monkeypatch):
    images = ShiftedImages.read(home / "images")
    specs = [f"{home}/mine.py:load", f"{home}/mine.py:sized"]
    found = ask_models(specs, images, kept=home / "kept", batch=4)
    # the folders' order: blue, grass green, red; the second of "odd" is red
    odd = [True, False, True, True, False, True, True, True, True]
    assert found.right.tolist() == [[True] * 9 + odd] * 2
    assert found.models == ("mine:load", "mine:sized")
    assert found.counts().tolist() == found.drawn.tolist() == [[3, 3, 3], [3, 3, 3]]
    assert len(list((home / "kept").iterdir())) == 2  # one a model
    read = []
    plain = answers_module._picture
    monkeypatch.setattr(answers_module, "_picture", lambda m, p: read.append(p) or plain(m, p))
    again = ask_models(specs, images, kept=home / "kept", batch=4)
    np.testing.assert_array_equal(again.right, found.right)
    assert read == []
    path = home / "images" / "base" / "red" / "1.png"
    Image.new("RGB", (8, 8), (0, 0, 255)).save(path)
    os.utime(path, ns=(1, 1))
    Image.new("RGB", (8, 8), (0, 0, 255)).save(home / "images" / "odd" / "red" / "new.png")
    more = ask_models(specs[:1], ShiftedImages.read(home / "images"), kept=home / "kept")
    assert [each.name for each in read] == ["1.png", "new.png"]
    assert more.right.tolist()[0] == [True] * 7 + [False, True] + odd + [False]


def test_a_killed_run_goes_on_to_the_same(home, monkeypatch):
    images, spec = ShiftedImages.read(home / "images"), [f"{home}/mine.py:load"]
    whole = ask_models(spec, images, batch=4)
    plain, calls = Model.answer, []

    def killed(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(Model, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        ask_models(spec, images, kept=home / "kept", batch=4)
    assert not list((home / "kept").glob(".*"))
    resumed = ask_models(spec, images, kept=home / "kept", batch=4)
    assert sum(calls[:2]) + sum(calls[3:]) == 18  # none twice
    np.testing.assert_array_equal(resumed.right, whole.right)
    (file,) = (home / "kept").iterdir()
    file.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged .* made again"):
        again = ask_models(spec, images, kept=home / "kept")
    np.testing.assert_array_equal(again.right, whole.right)


def test_only_what_passed_is_asked_about_and_the_unreadable_is_left_out(home):
    images = ShiftedImages.read(home / "images")
    images.kept[[0, 12]] = False
    (home / "images" / "base" / "red" / "2.png").write_bytes(b"no image")
    with pytest.warns(
        UserWarning, match=r"1 of 16 images .* such as base/red/2.png \(it is no image"
    ):
        found = ask_models([f"{home}/mine.py:load"], images, kept=home / "kept")
    assert found.counts().tolist() == [[2, 3, 2], [3, 2, 3]]
    assert found.drawn.tolist() == [[3, 3, 3], [3, 3, 3]]
    assert found.right.sum() == 15 - 2
    figures = measure(found, least=2, draws=20)
    assert figures.metrics()["yield.base"].value == pytest.approx(7 / 9)
    shown = examples(images, 9, 16)
    assert {name: each.shape for name, each in shown.items()} == {
        "base": (7, 3, 16, 16),
        "odd": (8, 3, 16, 16),
    }
    colours = examples(images, 3, 16)["odd"].mean((2, 3)).argmax(1)
    assert colours.tolist() == [2, 2, 0]  # of the eight the first, third and sixth
    images.kept[:] = False
    with pytest.raises(InputError, match=r"No image of .* passed the filter"):
        ask_models([f"{home}/mine.py:load"], images)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("bare", "returned a bare module, whose classes"),
        ("wrong", "'red' is none of the 3 labels of .*wrong; nearest are reed"),
        ("redder", "'grass green' is none of the 2 labels"),
        ("narrow", "failed on 2 images of 8 x 8 pixels"),
        ("none", "has no function 'none'"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_any_long_work(home, function, named):
    images = ShiftedImages.read(home / "images")
    with pytest.raises(InputError, match=named):
        check_models([f"{home}/mine.py:load", f"{home}/mine.py:{function}"], images)


def test_images_of_several_sizes_need_the_models_size(home):
    Image.new("RGB", (9, 12), "red").save(home / "images" / "odd" / "blue" / "0.png")
    images = ShiftedImages.read(home / "images")
    with pytest.raises(InputError, match="8 x 8 and 12 x 9"):
        check_models([f"{home}/mine.py:load"], images)
    check_models([f"{home}/mine.py:sized"], images)


def test_one_logit_and_two_folders(home):
    target = open_model(f"{home}/mine.py:redder")
    assert target.columns(["Red", "blue"]) == [1, 0]
    colours = torch.tensor([COLOURS["red"], COLOURS["blue"]])[:, :, None, None] / 255
    assert target.answer(colours.expand(2, 3, 4, 4)).tolist() == [1, 0]


def test_models_are_called_by_what_tells_them_apart():
    assert short_names(["timm:resnet18", "a/mine.py:load", "scenes-vit-w32-d4"]) == (
        "resnet18",
        "mine",
        "scenes-vit-w32-d4",
    )
    both = ("timm:resnet18", "torchvision:resnet18")
    assert short_names(both) == both
    assert short_names(["timm:local-dir:/a/b"]) == ("b",)
    two = ("a/mine.py:load", "b/mine.py:load", "b/mine.py:other")
    assert short_names(two) == ("a/mine.py:load", "b/mine.py:load", "mine:other")
    with pytest.raises(InputError, match="timm:resnet18 is named twice"):
        short_names(["timm:resnet18", "timm:resnet18"])
    with pytest.raises(InputError, match="must be a list"):
        short_names("timm:resnet18")


# ---------------------------------------------------------------- names of classes


def named(*names):
    labels = [own[0] for own in names]
    target = Target(nn.Identity(), "multiclass", labels)
    return Model("some:model", target, names, lambda image: image, "key")


def test_a_folder_may_use_any_name_of_a_class():
    model = named(
        ("n01", "tench", "tench, Tinca tinca", "Tinca tinca"), ("n02", "crane"), ("n03", "crane")
    )
    assert model.columns(["tinca_tinca", "n03"]) == [0, 2]
    assert model.columns(["Tench", "n02"]) == [0, 1]
    assert model.columns(["002", "000"]) == [2, 0]  # numbers alone: places
    with pytest.raises(InputError, match=r"'crane' is 2 of the labels of some:model \(n02, n03\)"):
        model.columns(["tench", "crane"])
    with pytest.raises(InputError, match=r"'tensh' is none of the 3 labels .* nearest are tench"):
        model.columns(["tensh"])
    with pytest.raises(InputError, match="'3' is none of the 3 labels"):
        model.columns(["0", "3"])
    # where the model itself calls its classes by numbers, these are meant
    assert named(("1", ""), ("0", "")).columns(["0", "1"]) == [1, 0]


# ---------------------------------------------------------------- timm and torchvision


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_a_model_of_timm_sees_images_as_timm_shows_them(tmp_path, picture):
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=3).eval()
    cfg = dict(net.pretrained_cfg, num_classes=3, crop_pct=0.8, interpolation="bicubic")
    cfg |= {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n2": "grass green, lawn"}}
    net.pretrained_cfg = cfg
    timm.models.save_for_hf(net, tmp_path / "net", safe_serialization=True)
    model = open_model(f"timm:local-dir:{tmp_path}/net")
    transform = create_transform(**resolve_data_config({}, model=net))
    with torch.no_grad():
        known = net(transform(picture)[None])[0]
        logits = model.target.logits(model.picture(rgb(picture))[None])[0]
    torch.testing.assert_close(logits, known, atol=1e-4, rtol=1e-4)
    assert known.std() > 1e-3
    assert model.columns(["lawn", "n3"]) == [1, 2]
    for file in (tmp_path / "net").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"holds no \*\.safetensors"):
        open_model(f"timm:local-dir:{tmp_path}/net")


def test_a_model_of_torchvision_sees_images_as_torchvision_shows_them(monkeypatch, picture):
    torch.manual_seed(0)
    net = torchvision_models.squeezenet1_1().eval()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: net.state_dict()
    )
    model = open_model("torchvision:squeezenet1_1")
    weights = torchvision_models.SqueezeNet1_1_Weights.DEFAULT
    with torch.no_grad():
        known = net(weights.transforms()(picture)[None])[0]
        logits = model.target.logits(model.picture(rgb(picture))[None])[0]
    torch.testing.assert_close(logits, known, atol=1e-4, rtol=1e-4)
    # a class of ImageNet by its synset, its word and its number
    assert model.columns(["n01440764", "plastic bag"]) == [
        0,
        weights.meta["categories"].index("plastic bag"),
    ]
    assert model.columns(["999", "0"]) == [999, 0]
    with pytest.raises(InputError, match="'crane' is 2 of the labels"):
        model.columns(["crane"])


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("timm:resnet5O", "timm has no model 'resnet5O'; nearest are resnet5"),
        ("timm:test_resnet.nothing", "timm has no weights of 'test_resnet.nothing'"),
        ("timm:local-dir:/nowhere", "no config.json of timm"),
        ("torchvision:resnet5O", "torchvision has no classifier 'resnet5O'; nearest are resnet5"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier"),
        ("scenes-resnet", "No target 'scenes-resnet'"),
        ("young", "names no classes|'blue' is none of"),
    ],
)
def test_what_is_no_model_is_refused(home, spec, named):
    with pytest.raises(InputError, match=named):
        check_models([spec], ShiftedImages.read(home / "images"))


# ---------------------------------------------------------------- the command


@pytest.fixture
def called(monkeypatch, home):
    given = []
    monkeypatch.setattr(runs, "run_notebook", lambda *each: given.append(each) or home)
    monkeypatch.chdir(home)
    return given


def test_images_and_models_become_the_notebooks_parameters(called, home, capsys):
    (home / "verdict.txt").write_text("Snow costs most.\n", "utf-8")
    models = ["mine.py:load", "timm:resnet18", "torchvision:resnet50", "scenes-vit-w32-d4"]
    how = ["--shifts", "odd", "--least", "3", "--batch", "8", "--seed", "2", "--device", "cpu"]
    assert cli.main(["benchmark", "--images", "images", "--models", *models, *how]) == 0
    ((path, preset, parameters, out),) = called
    assert path == notebooks.ROOT / "notebooks" / "robustness.ipynb"
    assert (preset, out) == ("embedded", notebooks.ROOT / "runs" / "robustness" / "images")
    assert parameters == {
        "name": "images",
        "images": f"{home}/images",
        "models": [f"{home}/mine.py:load", *models[1:]],
        "shifts": ["odd"],
        "least": 3,
        "batch": 8,
        "seed": 2,
        "device": "cpu",
    }
    assert capsys.readouterr().out.endswith("report.html\n\nSnow costs most.\n")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--images", "nowhere", "--models", "mine.py:load"], "No folder of images at"),
        (["--images", "images/base", "--models", "mine.py:load"], "has no folder 'base'"),
        (["--images", "images", "--models", "other.py:load"], "there is no file"),
        (["--images", "images", "--models", "mine.py:lod"], "has no function 'lod'"),
        (["--images", "images", "--models", "scenes"], "No target 'scenes'"),
        (["--images", "images", "--models", "timm:"], "names none: write timm:resnet50"),
        (["--images", "images", "--models", "timm:local-dir:x"], "no config.json of timm"),
        (["--images", "images", "--models", "mine.py:load", "mine.py:load"], "is named twice"),
        (["--images", "images", "--models", "mine.py:load", "--least", "0"], "'least' must be 1"),
        (["--images", "images", "--models", "mine.py:load", "--shifts", "od"], "no shift 'od'"),
        (["--images", "images", "--models", "mine.py:load", "--masks", "m.npy"], "m.npy cannot be"),
        (["--images", "images", "--models", "mine.py:load", "--device", "tpu"], "device must be"),
        (["--images", "embedded", "--models", "young", "--masks", "mine.py"], "have no filter"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_runs(called, options, named, capsys):
    assert cli.main(["benchmark", *options]) == 2
    assert named in capsys.readouterr().err
    assert called == []


def test_the_notebook_shows_its_own_preset_and_a_refusal_needs_no_torch(home):
    tagged = notebooks.parameters(notebooks.ROOT / "notebooks" / "robustness.ipynb")
    assert tagged["images"] == "embedded"
    assert json.dumps(tagged)  # plain values
    assert not loaded("import visiondx.run.benchmark_checks") & (HEAVY | {"numpy"})
