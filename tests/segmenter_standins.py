"""Tiny randomly initialised segmenters in the official formats: CLIPSeg, Grounding DINO, SAM."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPSegTextConfig,
    CLIPSegVisionConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2Processor,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SwinConfig,
    ViTImageProcessor,
)

from painter_standins import tokenizer

SIDE = 64  # pixels that the SAMs read


def _saved(folder: Path, *parts: object) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def clipseg(folder: Path, seed: int = 0) -> Path:
    """A CLIPSeg that reads 32 px and knows letters, "dog" alone as a word."""
    torch.manual_seed(seed)
    words = tokenizer(folder.parent / "letters")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = CLIPSegTextConfig(
        vocab_size=len(words),
        num_hidden_layers=2,
        max_position_embeddings=12,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **small,
    )
    vision = CLIPSegVisionConfig(num_hidden_layers=3, image_size=32, patch_size=8, **small)
    config = CLIPSegConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=16,
        extract_layers=[1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    model = CLIPSegForImageSegmentation(config).eval()
    _spread(model, 0.2)
    images = ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=True)
    return _saved(folder, model, CLIPSegProcessor(images, words))


def _spread(model: nn.Module, deviation: float) -> None:
    """The ordinary start makes a word matter too little to be seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, deviation)


def grounding_dino(folder: Path, seed: int = 0) -> Path:
    """A Grounding DINO of 12 queries."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "dog", "snow", "hat"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    bert = BertTokenizer(str(folder / "vocab.txt"))
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=2,
            out_indices=[2, 3, 4],
        ).to_dict(),
        text_config=BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ).to_dict(),
        num_queries=12,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_text_len=8,
    )
    model = GroundingDinoForObjectDetection(config).eval()
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    return _saved(folder, model, GroundingDinoProcessor(images, bert))


def sam(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=SIDE,
            window_size=2,
            global_attn_indexes=[0],
            num_pos_feats=8,
            initializer_range=0.1,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=16, image_size=SIDE).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=8
        ).to_dict(),
    )
    images = SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )
    model = SamModel(config).eval()
    _spread(model, 0.3)
    return _saved(folder, model, SamProcessor(images))


def sam2(folder: Path, seed: int = 0, video: bool = False) -> Path:
    """A SAM 2. video: with the config of a checkpoint that reads videos as well, as all are."""
    torch.manual_seed(seed)
    hiera = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[],
    )
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=hiera.to_dict(),
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        ).to_dict(),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE).to_dict(),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=8
        ).to_dict(),
    )
    images = Sam2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16}
    )
    model = Sam2Model(config).eval()
    _spread(model, 0.3)
    _saved(folder, model, Sam2Processor(images))
    if video:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "sam2_video"}))
    return folder
