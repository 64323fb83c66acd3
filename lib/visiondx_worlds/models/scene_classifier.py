"""Small timm networks of three families, made for images of 64 px: the classifiers of `scenes`.

timm takes seconds to import, and other targets do without it: only building a network imports it.
"""

from torch import nn

from visiondx.core.errors import InputError

SIZE = 64
# what every scene classifier's target normalises by; a render's channels are about 0.5 +- 0.25
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def build_scene_classifier(family: str, width: int, depth: int, classes: int) -> nn.Module:
    """Images (B, 3, 64, 64) -> logits (B, classes); returned in train mode.

    Args:
        family: "resnet" (He et al. 2016), "convnext" (Liu et al. 2022) or "vit" (Dosovitskiy et
            al. 2021, with the early convolutions of Xiao et al. 2021).
        width: channels of the first stage; of every token in a vit. A multiple of 8.
        depth: blocks of each of four stages; all blocks of a vit.

    Raises:
        InputError: an unknown family, or a width, depth or number of classes it cannot have.
    """
    if family not in FAMILIES:
        raise InputError(f"Unknown family {family!r}: choose from {', '.join(FAMILIES)}.")
    if width < 8 or width % 8 or depth < 1 or classes < 2:
        raise InputError(
            f"A scene classifier needs a width that is a multiple of 8, a depth of 1 or more and "
            f"2 or more classes, got {width}, {depth} and {classes}."
        )
    return FAMILIES[family](width, depth, classes)


def _stages(width: int) -> tuple[int, ...]:
    """Channels of the four stages. The last does not double: at 2 px it has nothing to add."""
    return width, 2 * width, 4 * width, 4 * width


def _resnet(width: int, depth: int, classes: int) -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(
        BasicBlock,
        layers=(depth,) * 4,
        channels=_stages(width),
        num_classes=classes,
        stem_type="deep",  # three 3x3 convolutions: the plain 7x7 stem always has 64 channels
        stem_width=width // 2,
    )


def _convnext(width: int, depth: int, classes: int) -> nn.Module:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(
        depths=(depth,) * 4,
        dims=_stages(width),
        num_classes=classes,
        kernel_sizes=(7, 7, 5, 3),  # no larger than the 16, 8, 4 and 2 px they see need
        ls_init_value=None,  # a layer scale of 1e-6 takes longer to wake than these trainings last
    )


def _vit(width: int, depth: int, classes: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    net = VisionTransformer(
        img_size=SIZE,
        patch_size=8,
        embed_dim=width,
        depth=depth,
        num_heads=4,
        num_classes=classes,
        class_token=False,
        global_pool="avg",
    )
    # A plain 8x8 patch embedding needs far more images than there are (Xiao et al., section 4)
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (width // 4, width // 2, width):
        layers += [
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    net.patch_embed.proj = nn.Sequential(*layers, nn.Conv2d(width, width, 1))
    for block in net.blocks:  # on the CPU the fused attention's backward is the slower one
        block.attn.fused_attn = False
    return net


FAMILIES = {"resnet": _resnet, "convnext": _convnext, "vit": _vit}
