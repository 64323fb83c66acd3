"""The model under diagnosis: any torch module with a task, its labels and its preprocessing."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.outputs import adapt, answers, check_labels, check_task, sensitive


class Target(nn.Module):
    """A model of images in [0, 1], differentiable, or a clear error.

    A binary module's output may be (B,) or (B, 1), the logit of "present", or (B, 2), the logits
    of (absent, present); a multiclass one's is (B, K), a logit for each label. A keypoint
    detector's is a heat map of logits for each point, (B, K, h, w), whose softmax over the pixels
    is where the point may be; a segmentation network's a map for each part, (B, P, h, w). Maps
    show the whole picture, in any resolution. With ``probabilities=True`` they are probabilities
    instead, or heat maps of weights.

    Args:
        module: takes (B, 3, H, W) after resizing and normalising; must be in eval mode.
        task: "binary", "multiclass", "keypoints" or "segmentation".
        labels: words for f(x) near 0 and near 1; the names of all K classes, points or parts.
        size: images are resized (bilinear, anti-aliased) to this height and width, or None.
        mean, std: per channel; the module sees ``(image - mean) / std``, or None for raw images.
        probabilities: the module ends in a sigmoid or softmax, or its heat maps are weights in
            [0, 1], such as those trained to equal Gaussians.

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
        check_task(task)
        check_labels(task, labels)
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
            InputError: a target of another task, or an output that is none of (B,), (B, 1), (B, 2).
        """
        return self.output(images, "binary")

    def logits(self, images: Tensor) -> Tensor:
        """Logits of all K labels of a multiclass target: images (B, 3, H, W) -> (B, K).

        Raises:
            InputError: a target of another task, or an output that is not (B, K).
        """
        return self.output(images, "multiclass")

    def keypoints(self, images: Tensor) -> Tensor:
        """Points (B, K, 2) of a keypoint detector, x and y in [0, 1] of the picture.

        The soft-argmax of its heat maps, in the coordinates of ``faces.keypoints``.

        Raises:
            InputError: a target of another task, or an output that is not (B, K, h, w).
        """
        return answers(self.output(images, "keypoints"), "keypoints")

    def parts(self, images: Tensor) -> Tensor:
        """Probabilities (B, P, h, w) of the parts at each pixel, from a segmentation network.

        Raises:
            InputError: a target of another task, or an output that is not (B, P, h, w).
        """
        return answers(self.output(images, "segmentation"), "segmentation")

    def output(self, images: Tensor, task: str) -> Tensor:
        """The logits of this task, in the shape that ``outputs.adapt`` gives them.

        Raises:
            InputError: the target has another task, or its module returned something else.
        """
        if self.task != task:
            raise InputError(
                f"This needs a {task} target, but this one is {self.task} "
                f"({', '.join(self.labels)}): choose another target."
            )
        return self._adapt(self.module(self.preprocess(images)), images)

    def _adapt(self, out: object, images: Tensor) -> Tensor:
        return adapt(out, images, self.task, self.labels, self.probabilities)

    def forward(self, images: Tensor) -> Tensor:
        """f(x) of images (B, 3, H, W) in [0, 1].

        Probabilities: (B,) of "present" from a binary target, (B, K), rows summing to 1, from a
        multiclass one, (B, P, h, w) from a segmentation network; points (B, K, 2) from a keypoint
        detector.
        """
        return answers(self.output(images, self.task), self.task)

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
                answer = sensitive(logit, self.task).sum()
                (gradient,) = torch.autograd.grad(answer, images, allow_unused=True)
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
        check_task(task)
        if ".py" not in spec and "/" not in spec:
            return registry.ask("target", spec)
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
        if task != "binary":
            raise InputError(
                f"{spec} returned a bare module, whose classes, points or parts have no names: "
                f'return Target(module, task="{task}", labels=(…)).'
            )
        return cls(built, task)


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
