"""Segmenters of transformers: CLIPSeg, and Grounding DINO with SAM or SAM 2.

CLIPSeg (Lüddecke and Ecker 2022) reads a picture and a word and draws the mask. Grounding DINO (Liu
et al. 2023) finds boxes of what words name, and SAM (Kirillov et al. 2023; SAM 2, Ravi et al. 2024)
makes a mask of each box: the pipeline of DiffExplainer, section 3.3. Pictures go through the
models' own processors, as 8-bit images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.files import reading
from visiondx.models.device import device_of
from visiondx.models.safe_weights import check_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

CLIPSEG, SAM, SAM2 = "clipseg", "sam", "sam2"
DETECTORS = ("grounding-dino", "mm-grounding-dino")
SAMS = {"sam": SAM, "sam2": SAM2, "sam2_video": SAM2}  # a checkpoint's model_type: how it is read
BOX, TEXT = 0.35, 0.25  # what a box's and a token's score must reach, as its authors have it
BATCH = 4  # pictures at once, with all of their words: these models read hundreds of pixels a side
SUREST = 0.01  # share of a picture's pixels, the surest, whose mean is CLIPSeg's score


class ClipSeg(nn.Module):
    """CLIPSeg: images (B, 3, H, W) and W words -> probabilities (B, W, H, W') and scores (B, W)."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__()
        self.model, self.processor = model, processor

    def forward(self, images: Tensor, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        count, asked = len(images), len(words)
        inputs = self.processor(
            text=list(words), images=_eight_bits(images), padding=True, return_tensors="pt"
        ).to(device_of(self.model))
        read = self.model(
            input_ids=inputs.input_ids.repeat(count, 1),
            attention_mask=inputs.attention_mask.repeat(count, 1),
            pixel_values=inputs.pixel_values.repeat_interleave(asked, 0),
        )
        side = read.logits.shape[-2:]
        logits = read.logits.view(count, asked, *side)  # one pair's come without its dimension
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        probabilities = logits.sigmoid()
        flat = probabilities.flatten(2)
        surest = flat.topk(max(1, round(SUREST * flat.shape[2])), 2).values
        return probabilities, surest.mean(2)


class GroundedSam(nn.Module):
    """Boxes from words, masks from boxes; the shapes of ``ClipSeg``.

    Of several boxes of a word the mask is their union. The score is the surest box's, 0 without
    one.

    Args:
        detector, reader: a Grounding DINO and its processor. sam, sizer: a SAM or SAM 2 and its
            processor. most: boxes of a word in a picture, the surest.
    """

    def __init__(
        self,
        detector: PreTrainedModel,
        reader: ProcessorMixin,
        sam: PreTrainedModel,
        sizer: ProcessorMixin,
        most: int = 10,
    ) -> None:
        super().__init__()
        self.detector, self.reader, self.sam, self.sizer = detector, reader, sam, sizer
        self.most = most

    def forward(self, images: Tensor, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        boxes, scores = self.boxes(images, words)
        size = images.shape[-2:]
        kept = scores > 0
        most = int(kept.flatten(1).sum(1).max())
        best = scores.amax(2) if scores.shape[2] else scores.new_zeros(scores.shape[:2])
        if not most:
            return images.new_zeros(*best.shape, *size), best
        # the boxes of all words of a picture side by side; where it has fewer, some mean nothing
        order = kept.flatten(1).int().argsort(dim=1, descending=True, stable=True)[:, :most]
        given = boxes.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
        real = kept.flatten(1).gather(1, order)
        probabilities = self.masks(images, given) * real[..., None, None]
        union = images.new_zeros(*best.shape, *size).flatten(2)
        word = (order // scores.shape[2])[..., None].expand(-1, -1, union.shape[2])
        union.scatter_reduce_(1, word, probabilities.flatten(2), "amax")
        return union.view(*best.shape, *size), best

    def boxes(self, images: Tensor, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Boxes (B, W, N, 4) as x0, y0, x1, y1 in pixels, the surest first, and scores (B, W, N).

        N is the most that a word has in a picture; a score of 0 is no box.
        """
        count, asked = len(images), len(words)
        pictures = [each for each in _eight_bits(images) for _ in words]
        inputs = self.reader(
            images=pictures,
            text=[f"{word}." for word in words] * count,
            padding=True,
            return_tensors="pt",
        ).to(device_of(self.detector))
        results = self.reader.post_process_grounded_object_detection(
            self.detector(**inputs),
            inputs.input_ids,
            threshold=BOX,
            text_threshold=TEXT,
            target_sizes=[tuple(images.shape[-2:])] * (count * asked),
        )
        orders = [r["scores"].argsort(descending=True)[: self.most] for r in results]
        pairs = list(zip(results, orders, strict=True))
        boxes = nn.utils.rnn.pad_sequence([r["boxes"][order] for r, order in pairs], True)
        scores = nn.utils.rnn.pad_sequence([r["scores"][order] for r, order in pairs], True)
        return boxes.unflatten(0, (count, asked)), scores.unflatten(0, (count, asked))

    def masks(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (B, N, 4) of the pictures -> probabilities (B, N, H, W) of each box's mask."""
        inputs = self.sizer(
            images=_eight_bits(images), input_boxes=boxes.tolist(), return_tensors="pt"
        )
        sizes = [inputs[k] for k in ("original_sizes", "reshaped_input_sizes") if k in inputs]
        inputs = inputs.to(device_of(self.sam))
        read = self.sam(
            pixel_values=inputs["pixel_values"],
            input_boxes=inputs["input_boxes"].float(),
            multimask_output=False,
        )
        logits = self.sizer.post_process_masks(read.pred_masks, *sizes, binarize=False)
        return torch.stack(logits)[:, :, 0].sigmoid()


def _eight_bits(images: Tensor) -> list[Tensor]:
    return list((images.clamp(0, 1) * 255).round().byte().cpu())


def read_segmenter(name: str | Path, masks: str | Path | None) -> dict[str, Any]:
    """Arguments of ``Segmenter``.

    Args:
        name, masks: folders that ``save_pretrained`` wrote, or names; see ``Segmenter.load``.

    Raises:
        InputError: none there, one of another kind, one that lacks a part, or a pickle.
    """
    kind = _kind(name)
    if kind == CLIPSEG:
        if masks is not None:
            raise InputError(f"{name} is a CLIPSeg, which makes masks itself: leave out {masks}.")
        parts = _read(name, "CLIPSegForImageSegmentation", "CLIPSegProcessor")
        return {"module": ClipSeg(*parts), "batch": BATCH}
    if kind not in DETECTORS:
        raise InputError(
            f"{name} holds a {kind or _NAMELESS}: a segmenter is a {CLIPSEG}, or a "
            f"{' or '.join(DETECTORS)} with masks from a {SAM} or {SAM2}."
        )
    if masks is None:
        raise InputError(
            f"{name} is a Grounding DINO, which finds boxes alone: give masks, a SAM or SAM 2 such "
            "as facebook/sam2-hiera-tiny."
        )
    sam = SAMS.get(_kind(masks))
    if sam is None:
        raise InputError(
            f"{masks} holds a {_kind(masks) or _NAMELESS}: masks of boxes come from a {SAM} or "
            f"{SAM2}."
        )
    letters = {SAM: "Sam", SAM2: "Sam2"}[sam]
    dino = "GroundingDino" if kind == DETECTORS[0] else "MMGroundingDino"
    detector = _read(name, f"{dino}ForObjectDetection", "GroundingDinoProcessor")
    parts = *detector, *_read(masks, f"{letters}Model", f"{letters}Processor")
    return {"module": GroundedSam(*parts), "least": BOX, "batch": BATCH}


def _kind(name: str | Path) -> str:
    """The ``model_type`` of its config."""
    from transformers import PreTrainedConfig

    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a folder that save_pretrained wrote.")
    with reading(name, _FIX):
        return PreTrainedConfig.get_config_dict(_place(name))[0].get("model_type", "")


def _read(name: str | Path, model: str, processor: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    import transformers

    folder = Path(name).expanduser()
    if folder.is_dir():
        check_weights(folder)
    with reading(name, _FIX):
        reader = getattr(transformers, processor).from_pretrained(_place(name))
        made, told = getattr(transformers, model).from_pretrained(
            _place(name), use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        missing = sorted(told["missing_keys"])
    if missing:
        raise InputError(
            f"{name} has no weights {missing[0]} for a {model}: fetch it again, or give another."
        )
    return made.eval(), reader


def _place(name: str | Path) -> str:
    """A folder's path, or a name as it is."""
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else str(name)


_NAMELESS = "model without a model_type"
_FIX = "give a folder that save_pretrained wrote, or a model's name, with the network there"
