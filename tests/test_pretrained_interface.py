"""A dataset interface of real models, from a folder of images to accuracies under shifts.

A Stable Diffusion with an LCM-LoRA, a CLIP of open_clip and a network of timm, all tiny and random
and in their official formats; and a folder as ImageNet's is, by synset. What comes out is held
against what diffusers, open_clip and timm make of the same files.
"""

import shutil

import numpy as np
import open_clip
import pytest
import timm
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image
from timm.data import create_transform, resolve_data_config

import visiondx as vx
from interface_files import WORDS, write_files
from visiondx.dataset_interfaces.manifest import read_manifest
from visiondx.search.descent import Descent

SHIFTS = ("base", "in the snow", "wearing a hat")
FEW = vx.Inversion(batch=4, descent=Descent(2, 0.05, "adam", decay=1e-2))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with all that a person has."""
    home = tmp_path_factory.mktemp("files")
    write_files(home)
    return home


@pytest.fixture(scope="module")
def interface(files):
    """Learned with the Stable Diffusion, painting in four steps."""
    teacher = vx.Painter.load(files / "painter")
    painter = vx.Painter.load(files / "painter", lora=files / "lora")
    encoder = vx.Encoder.load(f"local-dir:{files / 'clip'}")
    with pytest.warns(UserWarning, match=r"1 of 7 images .*n02084071/d\.jpg"):
        images = vx.ClassFolder.read(files / "imagenet", painter.size)
    return vx.DatasetInterface.fit(
        images, painter, encoder, FEW, words=WORDS, teacher=teacher, kept=files / "kept"
    )


@pytest.fixture(scope="module")
def painted(files, interface):
    """Three images of each class and shift, as an interface from its own file paints them."""
    interface.save(files / "mine")
    again = vx.DatasetInterface.load(files / "mine", interface.painter, interface.encoder)
    for shift in SHIFTS:
        again.generate(shift, n=3, seed=5, folder=files / "painted")
    return files / "painted"


def test_words_are_learned_with_the_teacher(files, interface) -> None:
    tokens = interface.tokens
    assert tokens.names == ("<n02084071>", "<n03797390>")
    assert tokens.initialisers == ("dog", "mug")
    assert interface.painter.distilled
    starts = interface.painter.token_embeddings(interface.painter.tokens(["dog"]))[0, 1]
    moved = (tokens.vectors[0, 0] - starts).abs().max()
    assert 1e-3 < moved < 0.2  # two steps of at most 0.05, and the length held
    torch.testing.assert_close(tokens.vectors[0, 0].norm(), starts.norm())
    assert tokens.losses.isfinite().all()
    with pytest.raises(vx.InputError, match="load it without its LCM-LoRA"):
        vx.DatasetInterface.fit(
            {"dog": torch.rand(2, 3, 16, 16)}, interface.painter, interface.encoder, FEW
        )


def test_images_are_those_of_diffusers(files, interface, painted) -> None:
    """The same words, LoRA and seeds in Stable Diffusion's own pipeline."""
    pipe = StableDiffusionPipeline.from_pretrained(files / "painter", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(files / "lora")
    pipe.fuse_lora()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    for path in interface.tokens.export(files / "words"):
        pipe.load_textual_inversion(str(path.parent))
    rows = read_manifest(painted)
    assert len(rows) == 3 * 2 * 3
    assert set(rows["shift"]) == set(SHIFTS)
    chosen = rows.groupby("shift").nth(-1)
    assert "a photo of a <n03797390> wearing a hat" in chosen["prompt"].tolist()
    sources = [torch.Generator().manual_seed(seed) for seed in chosen["seed"]]
    made = pipe(
        chosen["prompt"].tolist(),
        generator=sources,
        num_inference_steps=4,
        guidance_scale=1.0,
        output_type="np",
    ).images
    for file, theirs in zip(chosen["file"], made, strict=True):
        ours = np.asarray(Image.open(painted / file)) / 255
        assert ours.std() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1.1 / 255)


def test_the_filter_is_of_open_clip(files, interface, painted) -> None:
    clip, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{files / 'clip'}")
    read = open_clip.get_tokenizer(f"local-dir:{files / 'clip'}")

    def cosines(paths, text: str) -> np.ndarray:
        images = torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])
        with torch.no_grad():
            seen = clip.eval().encode_image(images, normalize=True)
            return (seen @ clip.encode_text(read([text]), normalize=True)[0]).numpy()

    rows = read_manifest(painted)
    own = rows[(rows["shift"] == "in the snow") & (rows["class"] == "n02084071")]
    paths = [painted / file for file in own["file"]]
    np.testing.assert_allclose(own["class_score"], cosines(paths, "a photo of a dog"), atol=2e-3)
    said = cosines(paths, "a photo in the snow")
    np.testing.assert_allclose(own["shift_score"], said, atol=2e-3)
    assert np.std(said) > 5e-3
    with pytest.raises(vx.InputError, match="'wearing a hat' has no threshold"):
        interface.with_threshold("in the snow", 0.0).filter(painted)
    mine = interface
    for name in SHIFTS[1:]:
        scores = rows.loc[rows["shift"] == name, "shift_score"]
        mine = mine.with_threshold(name, float(scores.median()))
    yields = mine.filter(painted)
    assert yields.index.tolist() == list(SHIFTS)
    assert yields.loc["in the snow", "paper"] == 0.732
    decided = read_manifest(painted)
    limits = decided["class"].map(mine.clip.photo)
    passed = decided["class_score"] >= limits
    shifted = decided["shift"].map(mine.clip.shift).fillna(-1)
    passed &= decided["shift_score"].fillna(0) >= shifted
    assert decided["kept"].tolist() == passed.tolist()
    assert 0 < yields.loc["in the snow", "value"] <= 0.5


def test_models_of_timm_are_measured(files, painted, tmp_path) -> None:
    shutil.copytree(painted, tmp_path / "painted")
    for path in (tmp_path / "painted").glob("*/manifest.parquet"):
        path.unlink()  # all count
    images = vx.ShiftedImages.read(tmp_path / "painted")
    specs = [f"timm:local-dir:{files / f'net{seed}'}" for seed in range(3)]
    answers = vx.ask_models(specs, images, kept=tmp_path / "kept")
    assert answers.classes == tuple(WORDS)
    for m, spec in enumerate(specs):
        net = timm.create_model(spec.removeprefix("timm:"), pretrained=True).eval()
        transform = create_transform(**resolve_data_config({}, model=net))
        seen = [transform(Image.open(images.folder / p).convert("RGB")) for p in images.paths]
        with torch.no_grad():
            said = net(torch.stack(seen)).argmax(1).numpy()
        np.testing.assert_array_equal(answers.right[m], said == answers.klass)
    assert 0 < answers.right.mean() < 1
    found = vx.measure(answers, least=3, draws=20)
    shares = answers.right.reshape(3, 3, 2, 3).mean(3).mean(2)  # the folders' order, base first
    np.testing.assert_allclose(found.base[:, :, 0], shares[:, :1].repeat(2, 1))
    np.testing.assert_allclose(found.impact[:, 0], (shares[:, :1] - shares[:, 1:]).mean(0))
    page = vx.write_robustness(found, tmp_path / "out", title="Mine")
    assert "wearing a hat" in page.read_text("utf-8")
