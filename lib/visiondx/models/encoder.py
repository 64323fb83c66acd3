"""`Encoder`: images and words in one space. Any open_clip model, or one by name.

open_clip takes seconds to import, so only making an encoder imports it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visiondx.core.errors import InputError, reason
from visiondx.models import registry, vocabulary
from visiondx.models.preprocess import Preprocess


class Encoder(nn.Module):
    """A frozen CLIP: unit vectors for images and for texts, compared by their dot product.

    The parameters are frozen, gradients reach the images, and the model stays in eval mode
    whatever module it is put into (its batch statistics must not follow the searched images).

    Args:
        clip: an open_clip model; its own preprocessing of images is used.
        tokenize: texts -> LongTensor (N, context_length), like an open_clip tokenizer; one with the
            attribute ``never_cuts`` refuses a text that is too long by itself.
        tokenizer_name: enters the fingerprint: the same weights read other tokens differently.
        knows: a word in lower case -> whether the encoder can know it; None where nobody can say.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenize: Callable[[list[str]], Tensor],
        tokenizer_name: str,
        knows: Callable[[str], bool] | None = None,
    ) -> None:
        from open_clip.model import get_model_preprocess_cfg
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        super().__init__()
        self.clip = clip.requires_grad_(False)
        self.tokenize = tokenize
        self.tokenizer_name = tokenizer_name
        self.knows = knows
        config = merge_preprocess_dict(PreprocessCfg(), get_model_preprocess_cfg(clip))
        self.preprocess = Preprocess.of(config)
        self._unusual = _unusual(config, clip)
        device = next(clip.parameters()).device
        for name in ("mean", "std"):
            value = torch.tensor(config[name], device=device).expand(3).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.eval()

    @classmethod
    def from_open_clip(
        cls, name: str, pretrained: str | None = None, device: str | torch.device = "cpu"
    ) -> "Encoder":
        """Any open_clip model.

        Args:
            name: an architecture ("ViT-B-32"), or a whole model as "local-dir:folder" or
                "hf-hub:owner/model".
            pretrained: a tag ("laion2b_s34b_b79k") or the path of a local checkpoint; not needed
                with "local-dir:" and "hf-hub:". A tag whose weights were trained with QuickGELU,
                such as "openai", gets it; of a file nobody can tell: for such a one, name
                "ViT-B-32-quickgelu".

        Raises:
            InputError: open_clip has no such model or weights, or cannot read them.
        """
        import open_clip
        from open_clip.pretrained import get_pretrained_cfg

        registry.check_encoder(name, pretrained or "")
        quick = bool(get_pretrained_cfg(name, pretrained or "").get("quick_gelu"))
        try:
            if pretrained and Path(pretrained).expanduser().is_file():
                pretrained = str(Path(pretrained).expanduser())
            clip = open_clip.create_model(name, pretrained, device=device, force_quick_gelu=quick)
            tokenize = open_clip.get_tokenizer(name)
        except Exception as error:
            raise InputError(
                f"open_clip could not load {name!r} with pretrained={pretrained!r} "
                f"({reason(error)}); check the name, the tag or path, and the network."
            ) from error
        return cls(clip, tokenize, name, vocabulary.known_by_pieces(tokenize))

    @classmethod
    def load(
        cls,
        name: str = "embedded",
        device: str | torch.device = "cpu",
        weights: str = "",
    ) -> "Encoder":
        """An encoder that an installed package offers by name, such as the embedded one, or any of
        open_clip.

        Args:
            weights: of open_clip, see ``from_open_clip``; empty for the embedded one.

        Raises:
            InputError: nobody offers it, its weights are missing, altered or of another model.
        """
        registry.check_encoder(name, weights)
        if name in registry.offered("encoders"):
            return registry.ask("encoder", name, device)
        return cls.from_open_clip(name, weights or None, device)

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in eval mode; training works on the wrapped `clip`."""
        return super().train(False)

    @property
    def logit_scale(self) -> float:
        """The learned factor that turns similarities into logits (already exponentiated)."""
        return self.clip.logit_scale.exp().item()

    @property
    def context_length(self) -> int:
        return self.clip.context_length

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights, the tokenizer and what is unusual in how they are used, see
        ``_unusual``: names caches of what the encoder computed.
        """
        return self._digest(self.tokenizer_name, "")

    @property
    def image_fingerprint(self) -> str:
        """sha256 of the image tower and its preprocessing: names what no text entered."""
        return self._digest("", "visual.")

    def _digest(self, start: str, prefix: str) -> str:
        digest = hashlib.sha256(f"{start}{self._unusual}".encode())
        for key, value in sorted(self.clip.state_dict().items()):
            if key.startswith(prefix):
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def prepare(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> normalised (B, 3, S, S), as the model's own preprocessing does
        it: see ``Preprocess``. Differentiable.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise InputError(
                f"Images of shape {tuple(images.shape)} were given; the encoder takes (B, 3, H, W)."
            )
        return (self.preprocess.tensor(images) - self.mean) / self.std

    def embed_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) of unit norm, differentiable in the images."""
        return F.normalize(self.clip.encode_image(self.prepare(images)).float(), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """P prompts -> (P, D) of unit norm.

        Raises:
            InputError: no prompt, an empty prompt, or one longer than the context.
        """
        ids = self.tokens(texts).to(self.mean.device)
        rows = [self.clip.encode_text(part) for part in ids.split(256)]
        return F.normalize(torch.cat(rows).float(), dim=-1)

    def unknown_words(self, texts: Sequence[str]) -> list[list[str]]:
        """Of each text, the words that the encoder cannot know, "qwxzk"; see ``vocabulary``."""
        if self.knows is None:
            return [[] for _ in texts]
        return vocabulary.unknown_words(texts, self.knows)

    def tokens(self, texts: list[str]) -> Tensor:
        """P prompts -> (P, context_length) token ids on the CPU, never cut silently."""
        if isinstance(texts, str) or not texts:
            raise InputError(f"Prompts {texts!r} were given; give a non-empty list of texts.")
        for text in texts:
            if not text.strip():
                raise InputError(f"The prompt {text!r} is empty; write a few words.")
        if getattr(self.tokenize, "never_cuts", False):
            return self.tokenize(texts)
        # open_clip's tokenizers cut silently and pad on the right: with one slot more, a text that
        # was cut shows another row.
        longer = self.tokenize(texts, context_length=self.context_length + 1)
        shorter = self.tokenize(texts, context_length=self.context_length)
        for text, row, kept in zip(texts, longer, shorter, strict=True):
            if not torch.equal(row[:-1], kept):
                raise InputError(
                    f"The prompt {text!r} is longer than the encoder's {self.context_length} "
                    "tokens; shorten it."
                )
        return shorter


def _unusual(config: dict, clip: nn.Module) -> str:
    """What departs from open_clip's default preprocessing at the tower's size, and from GELU in its
    layers, "" if nothing.
    """
    from open_clip.transform import PreprocessCfg
    from open_clip.transformer import QuickGELU
    from open_clip.utils import to_2tuple

    default = PreprocessCfg(getattr(getattr(clip, "visual", clip), "image_size", None))
    found, usual = (
        json.loads(json.dumps({**part, "size": to_2tuple(part["size"])}))  # tuples become lists
        for part in (config, asdict(default))
    )
    departs = {key: value for key, value in sorted(found.items()) if value != usual[key]}
    if any(isinstance(module, QuickGELU) for module in clip.modules()):
        departs["quick_gelu"] = True
    return json.dumps(departs) if departs else ""
