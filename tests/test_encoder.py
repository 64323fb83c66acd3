import copy
import json
import sys
from dataclasses import asdict

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import get_model_preprocess_cfg, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from standins import ToyWorld
from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.encoder import Encoder
from visiondx.models.preprocess import Preprocess
from visiondx_worlds.models.tiny_encoder import new_encoder, save_encoder
from visiondx_worlds.training.encoder import train_tokenizer

WORLD = ToyWorld()
SMALL = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    encoder = new_encoder(train_tokenizer([WORLD], count=50), seed=0)
    encoder.clip.train()
    with torch.no_grad():  # batch statistics that differ from the initial 0 and 1
        encoder.clip.encode_image(encoder.prepare(WORLD.render(WORLD.sample(32, 0))))
    encoder.eval()
    return encoder


@pytest.fixture
def images() -> torch.Tensor:
    return WORLD.render(WORLD.sample(4, 1))


def test_embeddings_have_unit_norm(encoder: Encoder, images: torch.Tensor) -> None:
    texts = encoder.embed_texts(["a red shape", "日本 😀"])
    embedded = encoder.embed_images(images)
    assert embedded.shape == (4, 128)
    assert texts.shape == (2, 128)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))


def test_gradient_reaches_the_images(encoder: Encoder, images: torch.Tensor) -> None:
    text = encoder.embed_texts(["a red shape"])[0]
    assert not text.requires_grad
    images = images[:2].clone().requires_grad_()
    (encoder.embed_images(images) @ text).sum().backward()
    # a central difference in float64 along a random direction
    exact = copy.deepcopy(encoder).double()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ends = [
            F.normalize(exact.clip.encode_image(exact.prepare(images.double() + h * direction)))
            for h in (1e-6, -1e-6)
        ]
    numeric = ((ends[0] - ends[1]) @ text.double()).sum() / 2e-6
    torch.testing.assert_close(
        (images.grad * direction).sum(), numeric, rtol=0.05, atol=1e-4, check_dtype=False
    )


def test_training_mode_of_a_parent_changes_nothing(encoder: Encoder, images: torch.Tensor) -> None:
    parent = torch.nn.Sequential(encoder)
    before = encoder.embed_images(images)
    parent.train()
    # alone, an image embeds as in its batch: no batch statistics are used
    torch.testing.assert_close(encoder.embed_images(images[:1]), before[:1], atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(m.training for m in encoder.modules())


def test_other_sizes_are_resized_and_cropped(encoder: Encoder) -> None:
    square = WORLD.render(WORLD.sample(2, 3), size=128)
    wide = F.pad(square, (32, 32, 0, 0), mode="reflect")
    inner = (slice(None), slice(None), slice(None), slice(2, -2))  # what no border reaches
    found, expected = (encoder.prepare(images)[inner] for images in (wide, square))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    small = F.interpolate(square, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(encoder.embed_images(square), encoder.embed_images(small))
    with pytest.raises(InputError, match=r"\(3, 64, 64\)"):
        encoder.embed_images(torch.rand(3, 64, 64))


def test_position_is_kept(encoder: Encoder) -> None:
    """A global average would embed a patch and its distant translate almost alike."""
    image = torch.full((2, 3, 64, 64), 0.5)
    image[0, :, 8:16, 8:16] = 1
    image[1, :, 48:56, 40:48] = 1
    a, b = encoder.clip.encode_image(encoder.prepare(image))
    assert (a - b).norm() > 0.02 * a.norm()


def test_prompts_are_checked(encoder: Encoder) -> None:
    for texts, reason in (([], "non-empty list"), (["  "], "empty"), (["zq" * 40], "shorten")):
        with pytest.raises(InputError, match=reason):
            encoder.embed_texts(texts)
    with pytest.raises(InputError, match="list of texts"):
        encoder.embed_texts("a red shape")


def test_saved_and_loaded_through_the_zoo(encoder: Encoder, images, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    encoder.tokenize.save()
    save_encoder(encoder, "toy", notebook="train/03_encoder.ipynb", seed=0)
    again = Encoder.load("toy")
    torch.testing.assert_close(
        again.embed_images(images), encoder.embed_images(images), atol=5e-3, rtol=0
    )  # fp16 on disk
    assert again.tokenizer_name == encoder.tokenizer_name
    assert Encoder.load("toy").fingerprint == again.fingerprint
    train_tokenizer([WORLD], seed=1, count=3).save()
    with pytest.raises(InputError, match="another tokenizer"):
        Encoder.load("toy")
    with pytest.raises(InputError, match="No encoder 'unknown': choose from toy, "):
        Encoder.load("unknown")


def test_fingerprint_follows_the_weights(encoder: Encoder) -> None:
    other = new_encoder(encoder.tokenize, seed=0)
    before, of_images = other.fingerprint, other.image_fingerprint
    assert before == new_encoder(encoder.tokenize, seed=0).fingerprint
    other.clip.logit_scale.data += 1e-3
    assert other.fingerprint != before
    assert other.image_fingerprint == of_images
    next(other.clip.visual.parameters()).data += 1e-3
    assert other.image_fingerprint != of_images


def test_wraps_a_local_open_clip_model(tmp_path) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    preprocess = {"mean": mean, "std": std, "resize_mode": "squash", "interpolation": "bilinear"}
    about = {"model_cfg": SMALL, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(0)
    clip = open_clip.CLIP(**SMALL)
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")

    encoder = Encoder.from_open_clip(f"local-dir:{tmp_path}")

    assert encoder.context_length == 12
    assert encoder.preprocess == Preprocess((32, 32), "squash", "bilinear")
    images = torch.rand(2, 3, 32, 32)
    by_hand = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = clip.eval().encode_image(by_hand, normalize=True)
    torch.testing.assert_close(encoder.embed_images(images), expected)
    ids = open_clip.SimpleTokenizer()(["a hat"], context_length=12)
    torch.testing.assert_close(
        encoder.embed_texts(["a hat"]), clip.encode_text(ids, normalize=True)
    )
    assert encoder.unknown_words(["a face with qwxzkvb", "a hat"]) == [["qwxzkvb"], []]
    encoder.embed_texts(["hat " * 10])  # 10 words, start and end: exactly the context
    with pytest.raises(InputError, match="longer than the encoder's 12 tokens"):
        encoder.embed_texts(["a hat", "hat " * 11])


def test_weights_of_a_tag_have_the_activation_that_they_were_trained_with(
    tmp_path, monkeypatch
) -> None:
    """As OpenAI's were with QuickGELU, though "ViT-B-32" alone names GELU."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", SMALL)
    torch.manual_seed(0)
    clip = open_clip.CLIP(**SMALL, quick_gelu=True).eval()
    torch.save(clip.state_dict(), tmp_path / "small.pt")
    monkeypatch.setattr(
        "open_clip.factory.download_pretrained", lambda *_, **__: str(tmp_path / "small.pt")
    )
    tags = {name: {"url": "", "quick_gelu": name == "quick"} for name in ("quick", "usual")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", tags)
    quick, usual, file = (
        Encoder.load("small", weights=weights)
        for weights in ("quick", "usual", str(tmp_path / "small.pt"))
    )
    images = torch.rand(2, 3, 32, 32)
    expected = clip.encode_image(quick.prepare(images), normalize=True)
    torch.testing.assert_close(quick.embed_images(images), expected)
    assert (usual.embed_images(images) - expected).abs().max() > 1e-4
    assert file.image_fingerprint == usual.image_fingerprint  # a file names no activation
    assert quick.image_fingerprint != usual.image_fingerprint  # the same weights, other embeddings
    assert quick.fingerprint != usual.fingerprint


def small(**preprocess) -> Encoder:
    """A small CLIP whose images are preprocessed otherwise."""
    torch.manual_seed(0)
    clip = open_clip.CLIP(**SMALL)
    set_model_preprocess_cfg(clip, asdict(PreprocessCfg(size=32)) | preprocess)
    return Encoder(clip, open_clip.SimpleTokenizer(), "small")


def noise(width: int, height: int) -> Image.Image:
    """Pixels so far from black and white that no filter overshoots."""
    rng = np.random.default_rng(width + height)
    return Image.fromarray(rng.integers(64, 192, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_images_are_prepared_as_open_clip_does(mode: str, interpolation: str) -> None:
    encoder = small(resize_mode=mode, interpolation=interpolation, fill_color=90)
    config = get_model_preprocess_cfg(encoder.clip)
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    for width, height in ((32, 32), (100, 37), (37, 101), (20, 9), (9, 20), (33, 31), (300, 11)):
        image = noise(width, height)
        expected = transform(image) * encoder.std[0] + encoder.mean[0]
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        found = encoder.prepare(tensor[None] / 255)[0] * encoder.std[0] + encoder.mean[0]
        assert found.shape == (3, 32, 32)
        # Pillow rounds to 8 bits twice: after the rows, and after the columns
        assert (found - expected).abs().max() < 1.3 / 255
        picture = torch.from_numpy(np.array(encoder.preprocess.picture(image))).permute(2, 0, 1)
        torch.testing.assert_close(picture / 255, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(6, 10), (12, 5)])
def test_what_is_not_square_too(size: tuple[int, int]) -> None:
    for mode in ("shortest", "squash", "longest"):
        for interpolation in ("bicubic", "bilinear"):
            plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
            config = PreprocessCfg(size, **plain, resize_mode=mode, interpolation=interpolation)
            image, geometry = noise(23, 17), Preprocess.of(asdict(config))
            expected = image_transform_v2(config, is_train=False)(image)
            tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            assert (geometry.tensor(tensor / 255)[0] - expected).abs().max() < 1.3 / 255


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_preparing_has_a_gradient(mode: str) -> None:
    geometry = Preprocess((6, 6), mode)
    images = 0.4 + 0.2 * torch.rand(1, 3, 9, 5, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(geometry.tensor, images.double().requires_grad_())


def test_fingerprints_follow_the_preprocessing() -> None:
    usual = small()
    assert small(size=(32, 32), fill_color=0).fingerprint == usual.fingerprint
    for other in (
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"mean": (0.5, 0.5, 0.5)},
    ):
        encoder = small(**other)
        assert encoder.fingerprint != usual.fingerprint
        assert encoder.image_fingerprint != usual.image_fingerprint
    with pytest.raises(InputError, match="No resize mode 'crop': choose from shortest, longest"):
        small(resize_mode="crop")
    with pytest.raises(InputError, match="No interpolation 'nearest'"):
        small(interpolation="nearest")


def test_unknown_names_say_what_to_do(tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"No encoder 'ViT-Z-32': choose from embedded, .*ViT-.-32"
    ):
        Encoder.from_open_clip("ViT-Z-32", "openai")
    with pytest.raises(InputError, match="needs weights: a tag of open_clip"):
        Encoder.load("ViT-B-32")
    with pytest.raises(InputError, match=r"there is no file weights/clip\.pt"):
        Encoder.load("ViT-B-32", weights="weights/clip.pt")
    with pytest.raises(InputError, match=r"there is no folder .*missing"):
        Encoder.load(f"local-dir:{tmp_path / 'missing'}")
    with pytest.raises(InputError, match="'embedded' comes with its weights: leave out 'openai'"):
        Encoder.load("embedded", weights="openai")


def test_a_checkpoint_of_another_model_is_refused(tmp_path) -> None:
    torch.save({"visual.proj": torch.zeros(8, 8)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"could not load 'ViT-S-32' .*check the name") as refused:
        Encoder.load("ViT-S-32", weights=str(tmp_path / "other.pt"))
    assert "\n" not in str(refused.value)
    (tmp_path / "damaged.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match="could not load 'ViT-S-32'"):
        Encoder.load("ViT-S-32", weights=str(tmp_path / "damaged.pt"))


def test_names_of_open_clip_are_known_without_importing_it(monkeypatch) -> None:
    known = set(open_clip.list_models())
    assert set(registry.architectures()) == known >= {"visiondx-tiny"}  # one that was added
    monkeypatch.delitem(sys.modules, "open_clip")
    assert {"ViT-B-32", "RN50"} < set(registry.architectures()) <= known
