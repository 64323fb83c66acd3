"""The model under diagnosis: any torch module with a task, its labels and its preprocessing."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.errors import InputError
from visiondx.models import zoo
from visiondx.models.classifier import build_classifier

TASKS = ("binary",)
EMBEDDED = "target-"  # prefix of an embedded target's name in the zoo


class Target(nn.Module):
    """A binary classifier of images in [0, 1], differentiable, or a clear error.

    The wrapped module's output may be (B,) or (B, 1), the logit of "present", or (B, 2), the
    logits of (absent, present); with ``probabilities=True`` they are probabilities instead.

    Args:
        module: takes (B, 3, H, W) after resizing and normalising; must be in eval mode.
        task: "binary".
        labels: words for f(x) near 0 and near 1.
        size: images are resized (bilinear, anti-aliased) to this height and width, or None.
        mean, std: per channel; the module sees ``(image - mean) / std``, or None for raw images.
        probabilities: the module ends in a sigmoid or softmax.

    Raises:
        InputError: unsupported task, or impossible labels, size, mean or std.
    """

    def __init__(
        self,
        module: nn.Module,
        task: str = "binary",
        labels: Sequence[str] = ("absent", "present"),
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        probabilities: bool = False,
    ):
        super().__init__()
        _check_task(task)
        if len(labels) != 2:
            raise InputError(f"A binary target needs two labels, got {list(labels)}.")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != 3:
                raise InputError(f"{name} needs three numbers, one a channel, got {list(values)}.")
        if std is not None and min(std) <= 0:
            raise InputError(f"std must be positive, got {list(std)}.")
        size = (size, size) if isinstance(size, int) else size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise InputError(f"size must be one or two positive whole numbers, got {size}.")
        self.module, self.task, self.labels = module, task, tuple(labels)
        self.size = size
        self.normalise = mean is not None or std is not None
        self.probabilities = probabilities
        self.config: dict = {}  # an embedded target's card: its label and the planted attribute
        self.register_buffer("mean", torch.tensor(mean or (0.0,) * 3).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor(std or (1.0,) * 3).view(3, 1, 1), False)
        self.training = (
            module.training
        )  # the module's mode is the user's business; check() reads it

    def preprocess(self, images: Tensor) -> Tensor:
        if self.size is not None and self.size != tuple(images.shape[-2:]):
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return (images - self.mean) / self.std if self.normalise else images

    def logit(self, images: Tensor) -> Tensor:
        """Log-odds of "present": images (B, 3, H, W) in [0, 1] -> (B,).

        Raises:
            InputError: the module's output is none of (B,), (B, 1), (B, 2).
        """
        return self._adapt(self.module(self.preprocess(images)), images)

    def _adapt(self, out: Tensor, images: Tensor) -> Tensor:
        """The module's output, of any shape that a binary task may have, as log-odds (B,)."""
        if not isinstance(out, Tensor):
            raise InputError(
                f"The target must return one tensor, it returned a {type(out).__name__}: "
                "return the logits alone."
            )
        n, shape = len(images), tuple(out.shape)
        if shape not in ((n,), (n, 1), (n, 2)):
            raise InputError(
                f"A binary target must return shape ({n},), ({n}, 1) or ({n}, 2) for images of "
                f"shape {tuple(images.shape)}, it returned {shape}: return one logit an image."
            )
        two = len(shape) == 2 and shape[1] == 2
        if not self.probabilities:
            return out[:, 1] - out[:, 0] if two else out.reshape(n)
        return torch.logit(out[:, 1] if two else out.reshape(n), eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """f(x), the probability of "present": images (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]."""
        return torch.sigmoid(self.logit(images))

    def check(self, images: Tensor) -> None:
        """Try the target on a few images and raise InputError if a diagnosis could not use it.

        Checked: the images themselves, train mode, output shape, NaN, declared probabilities that
        are none, and a gradient that is missing, not finite, or zero for every image.
        """
        check_images(images)
        for name, part in self.named_modules():
            if part.training:
                raise InputError(
                    f"The target is in train mode ({name or 'target'}), so dropout and batch norm "
                    "would change its answers: call .eval() on it before returning it."
                )
        with torch.enable_grad():
            images = images.detach().clone().requires_grad_(True)
            try:
                out = self.module(self.preprocess(images))
                logit = self._adapt(out, images)
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"The target failed on images of shape {tuple(images.shape)} "
                    f"({type(error).__name__}: {error}): set size, mean and std to what it expects."
                ) from error
            if not torch.isfinite(out).all():
                raise InputError(
                    f"The target returned NaN or infinity for {_bad(out)} of {len(images)} "
                    "ordinary images: check its weights and its preprocessing."
                )
            if self.probabilities and (out.min() < 0 or out.max() > 1):
                raise InputError(
                    f"The target is declared to return probabilities but returned values from "
                    f"{out.min():.3g} to {out.max():.3g}: leave out probabilities=True for logits."
                )
            gradient = None
            if logit.requires_grad:
                (gradient,) = torch.autograd.grad(logit.sum(), images, allow_unused=True)
        if gradient is None or not gradient.any():
            raise InputError(
                "The target has no gradient with respect to its images, which the search needs: "
                "remove torch.no_grad, detach, rounding or argmax from its forward pass."
            )
        if not torch.isfinite(gradient).all():
            raise InputError(
                f"The target's gradient is NaN or infinite for {_bad(gradient)} of {len(images)} "
                "images: look for a log or square root of zero in its forward pass."
            )

    @classmethod
    def load(cls, spec: str, task: str = "binary") -> "Target":
        """A target from ``"path/to/file.py:function"`` or by the name of an embedded one.

        The function takes no arguments and returns an ``nn.Module`` (its raw output is then taken
        as logits of images in [0, 1]) or a ``Target``. While it runs, the file's folder can be
        imported from.

        Raises:
            InputError: unsupported task, unknown name, missing file or function, a failing
                function, or a result that is no module.
        """
        _check_task(task)
        if ".py" not in spec and "/" not in spec:
            return _embedded(spec)
        path, _, function = spec.rpartition(":")
        if not path.endswith(".py") or not function:
            raise InputError(
                f'Target {spec!r} is not understood: write "path/to/file.py:function".'
            )
        built = _call(Path(path).expanduser(), function)
        if isinstance(built, Target):
            return built
        if not isinstance(built, nn.Module):
            raise InputError(
                f"{spec} returned a {type(built).__name__}: return a torch.nn.Module or a Target."
            )
        return cls(built, task)


def save_target(
    name: str,
    target: Target,
    *,
    width: int,
    label: str,
    planted: str | None,
    notebook: str,
    seed: int,
    quality: dict,
) -> None:
    """Keep an embedded target whose module came from ``build_classifier(width)``.

    Args:
        label: the world's attribute that it was trained on.
        planted: the attribute of its planted bias, None for a balanced one.
        notebook, seed, quality: for the manifest, see ``zoo.save``.
    """
    config = {
        "task": target.task,
        "labels": list(target.labels),
        "width": width,
        "label": label,
        "planted": planted,
        "mean": target.mean.flatten().tolist(),
        "std": target.std.flatten().tolist(),
    }
    tensors = target.module.state_dict()
    zoo.save(EMBEDDED + name, tensors, config, notebook=notebook, seed=seed, quality=quality)


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise InputError(f"Task {task!r} is not supported: choose one of {', '.join(TASKS)}.")


def check_images(images: Tensor) -> None:
    """Raise InputError unless ``images`` is float (B, 3, H, W), finite and in [0, 1]."""
    if (
        images.ndim != 4
        or images.shape[1] != 3
        or not images.is_floating_point()
        or not len(images)
    ):
        raise InputError(
            f"Images must be float of shape (B, 3, H, W), got {images.dtype} {tuple(images.shape)}."
        )
    if not torch.isfinite(images).all():
        raise InputError(f"{_bad(images)} of {len(images)} images hold NaN or infinity.")
    if images.min() < -1e-3 or images.max() > 1 + 1e-3:
        raise InputError(
            f"Images must lie in [0, 1], got {images.min():.3g} to {images.max():.3g}: "
            "were they divided by 255?"
        )


def _bad(values: Tensor) -> int:
    """Number of rows (B, ...) with a value that is not finite."""
    return int((~torch.isfinite(values)).reshape(len(values), -1).any(1).sum())


def embedded() -> list[str]:
    """Names of the embedded targets."""
    return [n.removeprefix(EMBEDDED) for n in sorted(zoo.manifest()) if n.startswith(EMBEDDED)]


def _embedded(name: str) -> Target:
    if name not in embedded():
        raise InputError(
            f"No embedded target {name!r}: choose from {', '.join(embedded()) or 'none'}, or name "
            'your own as "path/to/file.py:function".'
        )
    tensors, config = zoo.load(EMBEDDED + name)
    module = build_classifier(config["width"])
    module.load_state_dict(tensors)
    target = Target(
        module.eval(), config["task"], config["labels"], mean=config["mean"], std=config["std"]
    )
    target.config = config
    return target


def _call(path: Path, function: str) -> object:
    """Import the file under a name of its own, and call its function."""
    if not path.is_file():
        raise InputError(f"No file at {path}: check the path of the target.")
    spec = importlib.util.spec_from_file_location(f"visiondx_target_{path.stem}", path)
    loaded: ModuleType = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[spec.name] = loaded  # dataclasses and pickled classes in the file look it up
    try:
        spec.loader.exec_module(loaded)
        if not callable(getattr(loaded, function, None)):
            raise InputError(
                f"{path} has no function {function!r}: check the name after the colon."
            )
        return getattr(loaded, function)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}:{function} failed with {type(error).__name__}: {error}. "
            "Make it run by itself in Python first."
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
