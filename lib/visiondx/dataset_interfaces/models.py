"""Classifiers to be measured: embedded ones, one's own, timm's and torchvision's.

    open_model("scenes-resnet-w16-d2")            # by the name of an embedded target
    open_model("path/to/file.py:load")            # one's own: see ``Target.load``
    open_model("timm:resnet50.a1_in1k")           # pretrained; or timm:local-dir:path/to/folder
    open_model("torchvision:resnet50")            # with its newest weights

Each reads images as it was evaluated by its makers. An output may be called by several names, such
as ImageNet's "n03958227", "plastic bag" and its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from visiondx.core.errors import InputError, reason
from visiondx.core.files import digest, result_key, sha256
from visiondx.core.words import plain
from visiondx.models.outputs import ABSENT
from visiondx.models.target import Target

TIMM, TORCHVISION = "timm:", "torchvision:"
METHOD = 1  # of reading images and answering, raised with every change of either
IMAGENET = 1000  # classes, whose order is the same in timm and torchvision


@dataclass(frozen=True)
class Model:
    """A classifier in eval mode.

    spec: as it was asked for. names: K, all that each output may be called. picture: an upright RGB
    image (``pixels.rgb``) -> (3, H, W) in [0, 1], as the target takes it. fingerprint: of all that
    its answers hang on.
    """

    spec: str
    target: Target
    names: tuple[tuple[str, ...], ...]
    picture: Callable[[Image.Image], Tensor]
    fingerprint: str

    def columns(self, classes: Sequence[str]) -> list[int]:
        """Which output is each class of a folder, by name.

        Letter case and ``_`` for a space do not count. Where an image folder names its classes by
        numbers alone and the model does not, they are the outputs' places.

        Raises:
            InputError: a class that no output, or more than one, is called; it names the nearest.
        """
        places: dict[str, set[int]] = {}
        for k, names in enumerate(self.names):
            for name in names:
                places.setdefault(_plain(name), set()).add(k)
        numbers = all(name.isdecimal() for name in classes)
        if numbers and not any(_plain(name) in places for name in classes):
            places = {str(k): {k} for k in range(len(self.names))}
            classes = [str(int(name)) for name in classes]
        for name in classes:
            found = places.get(_plain(name), set())
            if len(found) == 1:
                continue
            own = [names[0] for names in self.names]
            if found:
                which = ", ".join(own[k] for k in sorted(found))
                raise InputError(
                    f"The class {name!r} is {len(found)} of the labels of {self.spec} ({which}): "
                    "rename its folder as one of them."
                )
            near = get_close_matches(_plain(name), places, 3, 0.5)
            said = "nearest are" if near else "they are"
            raise InputError(
                f"The class {name!r} is none of the {len(own)} labels of {self.spec}; {said} "
                f"{', '.join(near or own[:5])}: name the folders as the labels, or the labels as "
                "the folders."
            )
        return [next(iter(places[_plain(name)])) for name in classes]

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """The output of the largest logit of each image (B, 3, H, W): (B,) int64, on the CPU."""
        out = self.target.output(images, self.target.task).float().cpu()
        return (out > 0).long() if self.target.task == "binary" else out.argmax(1)


def short_names(specs: Sequence[str]) -> tuple[str, ...]:
    """What models are called in tables: the shortest that tells them apart.

    Raises:
        InputError: no model, or one that is named twice.
    """
    if isinstance(specs, str) or not specs:
        raise InputError('models must be a list such as ["timm:resnet50"]: name at least one.')
    for spec in specs:
        if not isinstance(spec, str) or not spec.strip():
            raise InputError(f"A model is named by words, got {spec!r}: see --models.")
        if specs.count(spec) > 1:
            raise InputError(f"The model {spec} is named twice: name it once.")
    forms = [_forms(spec) for spec in specs]
    firsts = [[own[min(k, len(own) - 1)] for own in forms] for k in range(3)]
    return tuple(
        next((names[m] for names in firsts if names.count(names[m]) == 1), spec)
        for m, spec in enumerate(specs)
    )


def open_model(spec: str, device: str | torch.device = "cpu") -> Model:
    """A classifier by its name or file, see above; it is put into eval mode.

    Raises:
        InputError: what ``check_source`` and ``Target.load`` refuse, weights that cannot be had, or
            a model without classes.
    """
    check_source(spec)
    if spec.startswith(TIMM):
        return _timm(spec, device)
    if spec.startswith(TORCHVISION):
        return _torchvision(spec, device)
    target = Target.load(spec, "multiclass")
    if target.task not in ("binary", "multiclass"):
        raise InputError(f"{spec} is a {target.task} target, which has no class to be right about.")
    if target.labels == ABSENT:
        raise InputError(
            f'{spec} names no classes: return Target(module, task="multiclass", labels=(…)).'
        )
    path = Path(spec.rpartition(":")[0]).expanduser()
    code = sha256(path) if path.suffix == ".py" else ""
    return _model(spec, target, [(label,) for label in target.labels], None, device, code)


def check_source(spec: str) -> None:
    """Raise InputError for a name that timm or torchvision do not know; no weights are fetched."""
    if spec.startswith(TORCHVISION):
        from torchvision import models

        known = models.list_models(module=models)
        name = spec.removeprefix(TORCHVISION)
        if name not in known:
            raise InputError(f"torchvision has no classifier {name!r}{_nearest(name, known)}.")
    if not spec.startswith(TIMM):
        return
    import timm

    name = spec.removeprefix(TIMM)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not (folder / "config.json").is_file():
            raise InputError(f"Model {spec!r}: there is no config.json of timm in {folder}.")
        if not any(folder.glob("*.safetensors")):
            raise InputError(
                f"{folder} holds no *.safetensors: have timm save them (save_for_hf), for a pickle "
                "could run any code."
            )
    elif not name.startswith("hf-hub:") and not timm.is_model(name):
        known = timm.list_models()
        raise InputError(f"timm has no model {name!r}{_nearest(name.partition('.')[0], known)}.")
    elif not name.startswith("hf-hub:") and not timm.models.is_model_pretrained(name):
        raise InputError(f"timm has no weights of {name!r}: choose one of list_pretrained().")


def _timm(spec: str, device: str | torch.device) -> Model:
    import timm
    from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_data_config

    name = spec.removeprefix(TIMM)
    if name.startswith("local-dir:"):
        name = f"local-dir:{Path(name.removeprefix('local-dir:')).expanduser()}"
    module = _weights(spec, lambda: timm.create_model(name, pretrained=True))
    config = resolve_data_config({}, model=module)
    told = module.pretrained_cfg.get("label_names")
    if told:
        described = module.pretrained_cfg.get("label_descriptions") or {}
        names = [(label, *_parts(described.get(label, ""))) for label in told]
    elif subset := infer_imagenet_subset(module):
        info = ImageNetInfo(subset)
        labels = info.label_names()
        names = [(label, *_parts(info.label_name_to_description(label))) for label in labels]
    else:
        raise InputError(
            f"{spec} does not tell the names of its classes: add label_names to its config."
        )
    transform = create_transform(**config, is_training=False, normalize=False)
    target = _target(spec, module, names, config["mean"], config["std"])
    return _model(spec, target, names, lambda image: _unit(transform(image)), device, str(config))


def _torchvision(spec: str, device: str | torch.device) -> Model:
    from timm.data import ImageNetInfo
    from torchvision import models
    from torchvision.transforms import functional as TF

    name = spec.removeprefix(TORCHVISION)
    weights = models.get_model_weights(name).DEFAULT
    module = _weights(spec, lambda: models.get_model(name, weights=weights))
    names = [(label,) for label in weights.meta["categories"]]
    if len(names) == IMAGENET:
        info = ImageNetInfo()
        synsets = zip(info.label_names(), info.label_descriptions(), names, strict=True)
        names = [(synset, *own, *_parts(words)) for synset, words, own in synsets]
    seen = weights.transforms()

    def picture(image: Image.Image) -> Tensor:
        image = TF.resize(image, seen.resize_size, seen.interpolation, antialias=seen.antialias)
        return _unit(TF.pil_to_tensor(TF.center_crop(image, seen.crop_size)))

    target = _target(spec, module, names, seen.mean, seen.std)
    return _model(spec, target, names, picture, device, str(seen))


def _model(
    spec: str,
    target: Target,
    names: Sequence[tuple[str, ...]],
    picture: Callable[[Image.Image], Tensor] | None,
    device: str | torch.device,
    made: str,
) -> Model:
    """A model of a target. `made`: of what its answers hang on besides its weights."""
    target = target.to(device).eval()
    state = target.module.state_dict()
    plainly = {k: v.float() if v.dtype == torch.bfloat16 else v for k, v in state.items()}
    seen = (repr(target.module), target.task, target.labels, target.size, target.probabilities)
    scale = [part.flatten().tolist() for part in (target.mean, target.std)]
    key = result_key(METHOD, digest(**plainly), *map(repr, seen), scale, target.class_index, made)
    return Model(spec, target, tuple(names), picture or _as_taken(target), key)


def _target(
    spec: str, module: nn.Module, names: Sequence[tuple[str, ...]], mean: object, std: object
) -> Target:
    labels = [own[0] for own in names]
    if len(set(labels)) < len(labels):
        raise InputError(f"{spec} has two classes of one name: correct its label_names.")
    return Target(module, "multiclass", labels, mean=mean, std=std)


def _weights(spec: str, load: Callable[[], nn.Module]) -> nn.Module:
    try:
        return load()
    except Exception as error:  # hubs, downloads and readers raise many kinds
        raise InputError(
            f"{spec} cannot be loaded ({reason(error)}): check its name, the network, and the room "
            "on the disk."
        ) from error


def _as_taken(target: Target) -> Callable[[Image.Image], Tensor]:
    """How a target's images are read: brought to its size by bilinear resampling, as it would."""

    def picture(image: Image.Image) -> Tensor:
        found = _unit(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        if target.size is not None and tuple(found.shape[1:]) != target.size:
            found = F.interpolate(found[None], target.size, mode="bilinear", antialias=True)[0]
        return found

    return picture


def _unit(image: Tensor) -> Tensor:
    """uint8 as numbers in [0, 1]."""
    return image / 255 if image.dtype == torch.uint8 else image.float()


def _parts(words: str) -> list[str]:
    """ "great white shark, man-eater" -> itself and each of its words for the class."""
    parts = [part.strip() for part in words.split(",")]
    return [name for name in dict.fromkeys([words.strip(), *parts]) if name]


def _plain(name: str) -> str:
    return plain(name.replace("_", " "))


def _forms(spec: str) -> tuple[str, ...]:
    """What a model may be called, the shortest first."""
    if spec.startswith((TIMM, TORCHVISION)):
        return spec.rpartition("/")[2].rpartition(":")[2], spec
    file, _, function = spec.rpartition(":")
    if file.endswith(".py"):
        return Path(file).stem, f"{Path(file).stem}:{function}", spec
    return (spec,)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 3)
    return f"; nearest are {', '.join(near)}" if near else ": check its name"
