"""Segmenters of transformers through our type: tiny checkpoints in the official formats, compared
with the libraries' own calls; folders and words that cannot be used.
"""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

import segmenter_standins as standins
from visiondx.core.errors import InputError
from visiondx.models import segmenter_pretrained
from visiondx.models.segmenter import Segmenter

WORDS = ["dog", "a hat", "snow"]
PLAIN = ["dog", "hat", "snow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One of each kind, saved once."""
    path = tmp_path_factory.mktemp("segmenters")
    for kind in ("clipseg", "grounding_dino", "sam", "sam2"):
        getattr(standins, kind)(path / kind)
    standins.sam2(path / "sam2_video", video=True)
    return path


@pytest.fixture(scope="module")
def images():
    """Four pictures of 8 bits, wider than high, as tensors and as PIL has them."""
    source = torch.Generator().manual_seed(3)
    coarse = torch.rand(4, 3, 5, 6, generator=source)
    bytes_ = (F.interpolate(coarse, (40, 48), mode="bilinear") * 255).round().byte()
    shown = [Image.fromarray(np.asarray(each.permute(1, 2, 0))) for each in bytes_]
    return bytes_.float() / 255, shown


def test_clipseg_masks_are_its_own(folder, images):
    tensors, shown = images
    found = Segmenter.load(folder / "clipseg")(tensors, WORDS, batch=3)
    model = CLIPSegForImageSegmentation.from_pretrained(folder / "clipseg").eval()
    processor = CLIPSegProcessor.from_pretrained(folder / "clipseg")
    for b, picture in enumerate(shown):
        inputs = processor(text=PLAIN, images=[picture] * 3, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[:, None]
        alone = F.interpolate(logits, (40, 48), mode="bilinear")[:, 0].sigmoid()
        torch.testing.assert_close(found.probabilities[b], alone, atol=1e-5, rtol=0)
        best = alone.flatten(1).sort(1, descending=True).values[:, :19].mean(1)  # 1 % of 1,920
        torch.testing.assert_close(found.scores[b], best, atol=1e-5, rtol=0)
    apart = found.probabilities.diff(dim=1).abs().amax((1, 2, 3))
    assert (apart > 1e-3).all()  # the words matter, so a swap of them would have been seen


class Official:
    """The libraries' own models, used as their pages say, one picture and word at a time."""

    def __init__(self, folder, sam):
        self.reader = transformers.AutoProcessor.from_pretrained(folder / "grounding_dino")
        model = transformers.AutoModelForZeroShotObjectDetection
        self.detector = model.from_pretrained(folder / "grounding_dino").eval()
        names = {"sam": ("SamModel", "SamProcessor")}.get(sam, ("Sam2Model", "Sam2Processor"))
        kinds = (getattr(transformers, name) for name in names)
        self.sam, self.sizer = (kind.from_pretrained(folder / sam) for kind in kinds)
        self.sam.eval()

    @torch.no_grad()
    def __call__(self, picture, word, box, text):
        """Scores, and the union of the boxes' masks."""
        inputs = self.reader(images=picture, text=f"{word}.", return_tensors="pt")
        size = picture.size[::-1]
        result = self.reader.post_process_grounded_object_detection(
            self.detector(**inputs),
            inputs.input_ids,
            threshold=box,
            text_threshold=text,
            target_sizes=[size],
        )[0]
        scores, boxes = result["scores"].tolist(), result["boxes"].tolist()
        if not scores:
            return scores, torch.zeros(size)
        inputs = self.sizer(images=picture, input_boxes=[boxes], return_tensors="pt")
        masks = self.sam(**inputs, multimask_output=False).pred_masks
        sizes = [inputs[k] for k in ("original_sizes", "reshaped_input_sizes") if k in inputs]
        masks = self.sizer.post_process_masks(masks, *sizes, binarize=False)[0]
        return scores, masks[:, 0].sigmoid().amax(0)


@pytest.mark.parametrize("sam", ["sam", "sam2", "sam2_video"])
def test_grounded_masks_are_the_libraries_own(folder, images, monkeypatch, sam):
    tensors, shown = images
    segmenter = Segmenter.load(folder / "grounding_dino", folder / sam)
    assert (segmenter.known, segmenter.least) == (None, segmenter_pretrained.BOX)
    # untrained scores say nothing: a threshold between them, so that pairs have 0, 1, … boxes
    monkeypatch.setattr(segmenter_pretrained, "BOX", 0.0)
    _, scores = segmenter.module.boxes(tensors, PLAIN)
    flat = scores.flatten().sort(descending=True).values
    between = float((flat[14] + flat[15]) / 2)
    monkeypatch.setattr(segmenter_pretrained, "BOX", between)
    found = segmenter(tensors, WORDS, batch=2)
    official, counts = Official(folder, sam), []
    for b, picture in enumerate(shown):
        for w, word in enumerate(PLAIN):
            own, union = official(picture, word, between, segmenter_pretrained.TEXT)
            counts.append(len(own))
            torch.testing.assert_close(found.probabilities[b, w], union, atol=2e-4, rtol=0)
            assert found.scores[b, w].item() == pytest.approx(max(own, default=0.0), abs=1e-5)
    assert sum(counts) == 15
    assert min(counts) < max(counts)
    assert found.probabilities.std() > 0.01


def test_a_word_without_a_box_has_an_empty_mask(folder, images, monkeypatch):
    monkeypatch.setattr(segmenter_pretrained, "BOX", 2.0)
    found = Segmenter.load(folder / "grounding_dino", folder / "sam2")(images[0], WORDS)
    assert found.probabilities.shape == (4, 3, 40, 48)
    assert not found.masks.any()
    assert not found.scores.any()


def test_parts_that_do_not_go_together_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"Grounding DINO, which finds boxes alone: give masks"):
        Segmenter.load(folder / "grounding_dino")
    with pytest.raises(InputError, match=r"holds a clipseg: masks of boxes come from a sam"):
        Segmenter.load(folder / "grounding_dino", folder / "clipseg")
    with pytest.raises(InputError, match=r"holds a sam: a segmenter is a clipseg, or"):
        Segmenter.load(folder / "sam")
    with pytest.raises(InputError, match=r"a CLIPSeg, which makes masks itself: leave out"):
        Segmenter.load(folder / "clipseg", folder / "sam")
    with pytest.raises(InputError, match=r"No segmenter 'clipsegg': choose from "):
        Segmenter.load("clipsegg")
    with pytest.raises(InputError, match=r"has no config.json: give a folder"):
        Segmenter.load(tmp_path)


def test_a_pickle_is_refused_before_it_is_read(folder, tmp_path):
    copy = tmp_path / "clipseg"
    shutil.copytree(folder / "clipseg", copy)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=r"holds pytorch_model.bin, a pickle, which could run"):
        Segmenter.load(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"holds no weights: a file \*.safetensors"):
        Segmenter.load(copy)


def test_damaged_and_cut_weights_are_named(folder, tmp_path):
    copy = tmp_path / "sam2"
    shutil.copytree(folder / "sam2", copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InputError, match=r"sam2 is damaged"):
        Segmenter.load(folder / "grounding_dino", copy)


def test_weights_that_lack_a_tensor_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "clipseg"
    shutil.copytree(folder / "clipseg", copy)
    tensors = load_file(copy / "model.safetensors")
    del tensors["decoder.film_mul.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"has no weights decoder.film_mul.weight"):
        Segmenter.load(copy)


def test_an_open_vocabulary_takes_any_word_but_no_empty_one(folder):
    segmenter = Segmenter.load(folder / "clipseg")
    segmenter.check_words(["qwxzk"])
    with pytest.raises(InputError, match=r"needs words, got ' '"):
        segmenter.check_words(["dog", " "])
    with pytest.raises(InputError, match=r"Words are named twice, 'dog' and 'Dog'"):
        segmenter.check_words(["dog", "Dog"])
    with pytest.raises(InputError, match=r"must be a list such as"):
        segmenter.check_words("dog")
