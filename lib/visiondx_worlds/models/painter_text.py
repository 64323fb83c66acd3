"""The embedded CLIP's text tower as a ``CLIPTextModel``: the painter's text encoder, frozen.

Its token sequence, after the last layer norm, is the UNet's condition. The weights are open_clip's,
stored as transformers names them.
"""

from __future__ import annotations

from tokenizers import processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from visiondx.models.encoder import Encoder
from visiondx_worlds.models.tokenizer import BOS, EOS, PAD, SPECIAL, Tokenizer


def text_model(encoder: Encoder) -> CLIPTextModel:
    """The text tower of an embedded encoder; token outputs are equal up to rounding."""
    clip = encoder.clip
    blocks = clip.transformer.resblocks
    vocabulary, width = clip.token_embedding.weight.shape
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        projection_dim=clip.text_projection.shape[1],
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        max_position_embeddings=len(clip.positional_embedding),
        hidden_act="gelu",
        layer_norm_eps=clip.ln_final.eps,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    tensors = {
        "embeddings.token_embedding.weight": clip.token_embedding.weight,
        "embeddings.position_embedding.weight": clip.positional_embedding,
        **{f"final_layer_norm.{key}": value for key, value in clip.ln_final.named_parameters()},
    }
    names = {
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for index, block in enumerate(blocks):
        start = f"encoder.layers.{index}."
        for ours, theirs in names.items():
            for key, value in block.get_submodule(ours).named_parameters():
                tensors[f"{start}{theirs}.{key}"] = value
        for kind in ("weight", "bias"):
            parts = getattr(block.attn, f"in_proj_{kind}").chunk(3)
            for which, value in zip("qkv", parts, strict=True):
                tensors[f"{start}self_attn.{which}_proj.{kind}"] = value
    model = CLIPTextModel(config)
    model.load_state_dict({key: value.detach().clone() for key, value in tensors.items()})
    return model.eval().requires_grad_(False)


def text_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The embedded tokenizer as one of transformers: `<bos> pieces <eos>`, the same ids."""
    bpe = type(tokenizer.bpe).from_str(tokenizer.bpe.to_str())
    pad, _, bos, eos = SPECIAL
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, BOS), (eos, EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        model_max_length=tokenizer.context_length,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        split_special_tokens=True,  # typed by a user they are plain text
    )
