"""An interface paints into folders: the same image whatever the batch, never twice, none half."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dataset_interfaces_standins import ColourWords
from painter_standins import lcm_painter, pipeline
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces import generation
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.generation import image_seed
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.inversion import Inversion
from visiondx.dataset_interfaces.manifest import TYPES, read_manifest, yields
from visiondx.dataset_interfaces.shifts import PLACE, Shift
from visiondx.dataset_interfaces.tokens import ClassTokens, encode_prompts, fingerprint
from visiondx.models.painter import Painter
from visiondx.search.descent import Descent

FOG = Shift("fog", f"a {PLACE} in f", "a photo red")  # the stand-in reads a letter a token
WORDS = {"red": "red", "blue": "dog"}


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return lcm_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def interface(painter):
    source = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 1, 16, generator=source)
    tokens = ClassTokens(
        ("red", "blue"), ("<red>", "<blue>"), vectors, ("red", "dog"), fingerprint(painter)
    )
    clip = ClipFilter({"red": 0.0, "blue": 0.0}, {"red": 0.0, "blue": 0.0}, "first")
    return DatasetInterface(painter, ColourWords(), WORDS, clip, tokens)


def files(folder):
    """{path: bytes} of all files below."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def pictures(folder):
    return {name: data for name, data in files(folder).items() if name.endswith(".png")}


@pytest.fixture(scope="module")
def whole(interface, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, interface.generate(FOG, n=3, seed=5, folder=folder, batch=4)


def test_the_manifest_says_what_made_every_image(interface, whole):
    folder, rows = whole
    assert list(pictures(folder)) == [
        f"fog/{kind}/{number:04}.png" for kind in ("blue", "red") for number in range(3)
    ]
    assert rows["prompt"].tolist() == ["a <blue> in f"] * 3 + ["a <red> in f"] * 3
    assert rows["seed"].tolist() == [
        image_seed(5, FOG, kind, number) for kind in ("blue", "red") for number in range(3)
    ]
    assert rows["kept"].isna().all()
    read = read_manifest(folder)
    assert read["file"].tolist() == list(pictures(folder))
    pd.testing.assert_frame_equal(read.drop(columns="file"), rows.drop(columns="file"))
    assert {name: str(kind) for name, kind in read.dtypes.items()} == TYPES
    pd.testing.assert_frame_equal(read_manifest(folder / "fog"), rows)
    # the scores are those of the files, read by another road
    for _, row in read.iterrows():
        colour = np.sqrt(np.asarray(Image.open(folder / row["file"])).mean((0, 1)) / 255)
        colour /= np.linalg.norm(colour)
        assert row["shift_score"] == pytest.approx(colour[0], abs=2e-3)
        assert row["class_score"] == pytest.approx(
            0.0 if row["class"] == "blue" else colour[0], abs=2e-3
        )


def test_an_image_is_the_same_whatever_was_painted_before(interface, painter, whole, tmp_path):
    folder, _ = whole
    # alone, with its own prompt and seed
    prompt = interface.prompts(FOG, ["blue"])["blue"]
    with torch.no_grad():
        words = encode_prompts(painter, [prompt], interface.tokens)
        alone = painter(words, painter.noise([image_seed(5, FOG, "blue", 1)]))[0]
    stored = torch.from_numpy(np.array(Image.open(folder / "fog/blue/0001.png"))).permute(2, 0, 1)
    assert (stored / 255 - alone).abs().max() < 1 / 255
    # other batches, another order, more images, fewer classes first
    interface.generate(FOG, ["blue"], n=1, seed=5, folder=tmp_path, batch=1)
    interface.generate(FOG, n=4, seed=5, folder=tmp_path, batch=3)
    for name in pictures(folder):
        one, two = (np.array(Image.open(p / name)).astype(int) for p in (folder, tmp_path))
        assert np.abs(one - two).max() <= 1, name
    assert len(pictures(tmp_path)) == 8
    # and they do differ by class, number and seed
    assert len(set(pictures(tmp_path).values())) == 8
    interface.generate(FOG, n=1, seed=6, folder=tmp_path / "other")
    assert pictures(tmp_path / "other")["fog/red/0000.png"] != pictures(folder)["fog/red/0000.png"]


def test_a_seed_follows_from_run_shift_class_and_number():
    base = image_seed(5, FOG, "red", 0)
    assert base == image_seed(5, FOG, "red", 0) < 2**63
    others = [
        image_seed(6, FOG, "red", 0),
        image_seed(5, Shift.named("base"), "red", 0),
        image_seed(5, FOG, "blue", 0),
        image_seed(5, FOG, "red", 1),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("killed", [0, 1, 2, 3, 5])
def test_killed_generation_goes_on_to_the_same_files(
    interface, whole, tmp_path, monkeypatch, killed
):
    save, count = Image.Image.save, 0

    def dies(self, path, *args, **kwargs):
        nonlocal count
        if count == killed:
            path.write_bytes(b"half")  # as a full disk, or a plug that is pulled
            shutil.copy(path, path.with_name(".0000.left.png"))  # which atomic_write cannot remove
            raise KeyboardInterrupt
        count += 1
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        interface.generate(FOG, n=3, seed=5, folder=tmp_path, batch=4)
    monkeypatch.undo()
    there = [name for name in pictures(tmp_path) if "left" not in name]
    assert len(there) == killed
    assert all(pictures(tmp_path)[name] == pictures(whole[0])[name] for name in there)
    rows = interface.generate(FOG, n=3, seed=5, folder=tmp_path, batch=4)
    assert pictures(tmp_path) == pictures(whole[0])
    pd.testing.assert_frame_equal(rows, whole[1])


def test_nothing_is_painted_or_scored_twice(interface, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    before, seen = files(folder), interface.encoder.seen
    monkeypatch.setattr(interface.painter, "forward", lambda *_, **__: pytest.fail("painted"))
    rows = interface.generate(FOG, n=3, seed=5, folder=folder, batch=2)
    assert files(folder) == before
    assert interface.encoder.seen == seen
    pd.testing.assert_frame_equal(rows, whole[1])
    # a run that was killed while it scored: the manifest alone is made again
    (folder / "fog/manifest.parquet").unlink()
    pd.testing.assert_frame_equal(
        interface.generate(FOG, n=3, seed=5, folder=folder, batch=2), whole[1]
    )
    assert interface.encoder.seen == seen + 6


def test_scoring_goes_on_where_it_was_killed(interface, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    (folder / "fog/manifest.parquet").unlink()
    monkeypatch.setattr("visiondx.dataset_interfaces.manifest.PART", 4)
    embed, calls = interface.encoder.embed_images, []

    def dies(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(images)

    monkeypatch.setattr(interface.encoder, "embed_images", dies)
    with pytest.raises(KeyboardInterrupt):
        interface.generate(FOG, n=3, seed=5, folder=folder)
    assert len(read_manifest(folder)) == 4
    rows = interface.generate(FOG, n=3, seed=5, folder=folder)
    assert calls == [4, 2, 2]
    pd.testing.assert_frame_equal(rows, whole[1])


def test_filtering_says_of_each_image_whether_it_is_kept(interface, whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    interface.generate(
        Shift(**{**vars(FOG), "name": "base", "caption": ""}), n=2, seed=5, folder=folder
    )
    with pytest.raises(InputError, match="shift 'fog' has no threshold"):
        interface.filter(folder)
    assert read_manifest(folder)["kept"].isna().all()
    with pytest.raises(InputError, match=r"No filter has decided on the images of 'base'"):
        yields(read_manifest(folder))
    scores = whole[1]["shift_score"].sort_values().to_numpy()
    limit = scores[2:4].mean()  # three of six pass
    found = interface.with_threshold(FOG, limit).filter(folder)
    assert list(found.index) == ["base", "fog"]
    assert found["value"].tolist() == [1.0, 0.5]
    assert found["n"].tolist() == [4, 6]
    # Wilson's interval of 3 of 6
    assert found.loc["fog", ["low", "high"]].tolist() == pytest.approx([0.1876, 0.8124], abs=1e-4)
    assert found.loc["base", "paper"] == 0.926
    rows = read_manifest(folder)
    kept = rows.loc[rows["shift"] == "fog", "kept"]
    assert kept.tolist() == (whole[1]["shift_score"] >= limit).tolist()
    # images painted later are not decided on yet; those that are stay so
    later = interface.generate(FOG, n=4, seed=5, folder=folder)
    assert later["kept"].isna().tolist() == [False] * 3 + [True] + [False] * 3 + [True]


def test_names_paint_other_images_into_another_folder(interface, whole, tmp_path):
    names = interface.by_name()
    assert names.prompts(FOG) == {"red": "a red in f", "blue": "a dog in f"}
    with pytest.raises(InputError, match="images of another painter, encoder, prompt or seed"):
        names.generate(FOG, n=1, seed=5, folder=whole[0])
    with pytest.raises(InputError, match="another painter, encoder, prompt or seed"):
        interface.generate(FOG, n=1, seed=6, folder=whole[0])
    names.generate(FOG, n=1, seed=5, folder=tmp_path)
    assert pictures(tmp_path)["fog/red/0000.png"] != pictures(whole[0])["fog/red/0000.png"]
    (tmp_path / "strange/red").mkdir(parents=True)
    (tmp_path / "strange/red/0000.png").write_bytes(b"")
    with pytest.raises(InputError, match="nobody vouches for"):
        names.generate(Shift("strange", f"a {PLACE}", ""), n=1, folder=tmp_path)


def test_an_interface_is_saved_and_read(interface, painter, tmp_path):
    named = interface.with_threshold(FOG, 0.25)
    named.save(tmp_path)
    read = DatasetInterface.load(tmp_path, painter, ColourWords())
    assert read.words == WORDS
    assert read.clip == named.clip
    assert torch.equal(read.tokens.vectors, named.tokens.vectors)
    assert read._key(FOG, 5) == interface._key(FOG, 5)
    named.by_name().save(tmp_path)
    assert DatasetInterface.load(tmp_path, painter, ColourWords()).tokens is None
    with pytest.raises(InputError, match="thresholds belong to another encoder"):
        DatasetInterface.load(tmp_path, painter, ColourWords("second"))
    with pytest.raises(InputError, match="No dataset interface in"):
        DatasetInterface.load(tmp_path / "none", painter, ColourWords())
    (tmp_path / "interface.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        DatasetInterface.load(tmp_path, painter, ColourWords())


def test_an_interface_is_fitted_to_images_by_class(painter, tmp_path):
    pipe = pipeline(tmp_path / "teacher")
    teacher = Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)
    source = torch.Generator().manual_seed(0)
    images = {name: torch.rand(3, 3, 16, 16, generator=source) for name in ("n01", "n02")}
    settings = Inversion(descent=Descent(2, 0.1, "adam"), templates=(f"a {PLACE}",))
    given = {"words": {"n01": "red", "n02": "dog"}, "teacher": teacher, "kept": tmp_path / "kept"}
    found = DatasetInterface.fit(images, painter, ColourWords(), settings, **given)
    assert found.words == given["words"]
    assert found.clip == ClipFilter.fit(images, ColourWords(), given["words"])
    assert found.tokens.classes == ("n01", "n02")
    assert found.tokens.initialisers == ("red", "dog")
    assert found.prompts(FOG) == {"n01": "a <n01> in f", "n02": "a <n02> in f"}
    broad = DatasetInterface.fit(images, painter, ColourWords(), settings, start="dog", **given)
    assert broad.tokens.initialisers == ("dog", "dog")
    assert broad.words == found.words
    again = DatasetInterface.fit(images, painter, ColourWords(), settings, **given)
    assert torch.equal(again.tokens.vectors, found.tokens.vectors)
    rows = found.generate(FOG, n=1, folder=tmp_path)
    assert rows["class"].tolist() == ["n01", "n02"]
    # the captions say the words: sim("a photo of a red") of the one, no colour of the other
    assert rows["class_score"].tolist() == pytest.approx([rows["shift_score"][0], 0.0], abs=1e-6)
    real = {"n01": images["n01"], "cat": images["n02"]}
    with pytest.raises(InputError, match="must have the same classes, not 'cat'"):
        DatasetInterface.fit(images, painter, ColourWords(), settings, validation=real, **given)


def test_wrong_input_is_refused_before_anything_is_painted(interface, tmp_path, monkeypatch):
    monkeypatch.setattr(interface.painter, "forward", lambda *_, **__: pytest.fail("painted"))
    for said, given in (
        ("No class 'green': choose from red, blue", {"classes": ["green"]}),
        ("There is no class to paint", {"classes": []}),
        ("n is 0: paint 1 to 10000", {"n": 0}),
        ("batch is 0", {"batch": 0}),
        ("seed must be a whole number", {"seed": -1}),
    ):
        with pytest.raises(InputError, match=said):
            interface.generate(FOG, folder=tmp_path, **{"n": 1, **given})
    with pytest.raises(InputError, match=r"needs .* tokens and the painter reads"):
        interface.generate("in a very long forest", n=1, folder=tmp_path)
    assert not pictures(tmp_path)
    with pytest.raises(InputError, match="cannot name a folder"):
        generation.asked(FOG, {"a/b": "a b"}, 1, 0)
    with pytest.raises(InputError, match="differ in letter case alone"):
        generation.asked(FOG, {"Dog": "a Dog", "dog": "a dog"}, 1, 0)
    with pytest.raises(InputError, match="No generated images in"):
        read_manifest(tmp_path / "nothing")
