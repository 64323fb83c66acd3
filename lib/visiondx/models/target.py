"""The model under diagnosis: any torch module with a task, its labels and its preprocessing."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.home import Home, call
from visiondx.models.modes import set_mode
from visiondx.models.outputs import ABSENT, adapt, answers, check_labels, check_task, class_labels
from visiondx.models.trial import try_target


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
            [0, 1], such as those trained to equal Gaussians. None: it returns logits, and
            ``check`` refuses what looks like probabilities; False: it is not asked.
        class_index: of a binary target whose module returns (B, K): the class k that is "present"
            against all others together. (Of a multi-label network, each of whose outputs is a
            logit by itself, return that output alone instead.)

    Raises:
        InputError: no module, unsupported task, or impossible labels, size, mean, std or class.
    """

    def __init__(
        self,
        module: nn.Module,
        task: str = "binary",
        labels: Sequence[str] = ABSENT,
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        probabilities: bool | None = None,
        class_index: int | None = None,
    ):
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"A Target needs a torch.nn.Module, got a {type(module).__name__}.")
        check_task(task)
        if class_index is not None:
            labels = class_labels(task, class_index, labels)
        check_labels(task, labels)
        self.module, self.task, self.labels = module, task, tuple(labels)
        self.size = _size(size)
        self.normalise = mean is not None or std is not None
        self.probabilities, self.class_index = probabilities, class_index
        self.home: Home | None = None  # the folder of the file that it was loaded from
        self.config: dict = {}  # an embedded target's card: its label and the planted attribute
        self.register_buffer("mean", _channels("mean", (0.0,) * 3 if mean is None else mean), False)
        self.register_buffer("std", _channels("std", (1.0,) * 3 if std is None else std), False)
        if self.std.min() <= 0:
            raise InputError(f"std must be positive, got {list(std)}.")
        # the module's mode is the user's business; check() reads it
        self.training = getattr(module, "training", False)

    def preprocess(self, images: Tensor) -> Tensor:
        if self.size is not None and self.size != tuple(images.shape[-2:]):
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return (images - self.mean) / self.std if self.normalise else images

    @property
    def half_precision(self) -> bool:
        return self._dtype() in (torch.float16, torch.bfloat16)

    def _dtype(self) -> torch.dtype | None:
        dtypes = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return next(dtypes, None)

    def raw(self, images: Tensor) -> object:
        """What the module returns for images (B, 3, H, W) in [0, 1].

        A module in half or double precision gets such images, and its answer comes back in theirs.
        """
        seen, dtype = self.preprocess(images), self._dtype()
        if dtype in (torch.float16, torch.bfloat16, torch.float64):
            seen = seen.to(dtype)
        if seen is images:
            seen = images.clone()  # the module may write into what it is given
        with self.home.open() if self.home else nullcontext():
            out = self.module(seen)
        known = isinstance(out, Tensor) and out.is_floating_point()
        return out.to(images.dtype) if known else out

    def read(self, out: object, images: Tensor) -> Tensor:
        """The logits that are meant by what ``raw`` returned for these images, see ``adapt``."""
        return adapt(out, images, self.task, self.labels, self.probabilities, self.class_index)

    def of_class(self, index: int) -> "Target":
        """A binary target: this class of a multiclass one against all others.

        Its logit is z_k - log Σ exp(z_j) over j ≠ k, so that f(x) is the softmax's probability.

        Raises:
            InputError: a target of another task, or a class that it does not have.
        """
        if self.task != "multiclass":
            raise InputError(
                f"A class can be chosen of a multiclass target, this one is {self.task}: leave it "
                "out."
            )
        if not 0 <= index < len(self.labels):
            raise InputError(
                f"There is no class {index} of {len(self.labels)}: choose from 0 to "
                f"{len(self.labels) - 1}."
            )
        label = self.labels[index]
        found = Target(
            self.module,
            "binary",
            (f"not {label}", label),
            self.size,
            self.mean.flatten().tolist() if self.normalise else None,
            self.std.flatten().tolist() if self.normalise else None,
            self.probabilities,
            index,
        )
        found.home = self.home
        return found

    def train(self, mode: bool = True) -> "Target":
        """Train or eval mode of the module and its parts; exported ones have none."""
        self.training = mode
        set_mode(self.module, mode)
        return self

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
            one = self.task == "multiclass" and task == "binary"
            raise InputError(
                f"This needs a {task} target, but this one is {self.task} "
                f"({', '.join(self.labels)}): "
                + ("take one of its classes by of_class(k)." if one else "choose another target.")
            )
        return self.read(self.raw(images), images)

    def forward(self, images: Tensor) -> Tensor:
        """f(x) of images (B, 3, H, W) in [0, 1].

        Probabilities: (B,) of "present" from a binary target, (B, K), rows summing to 1, from a
        multiclass one, (B, P, h, w) from a segmentation network; points (B, K, 2) from a keypoint
        detector.
        """
        return answers(self.output(images, self.task), self.task)

    def check(self, images: Tensor) -> None:
        """Try the target on a few images and raise InputError if a diagnosis could not use it.

        Refused: unusable images, train mode, a failing module, another output shape, NaN,
        probabilities that were not declared (``models.trial`` has the rule) or declared ones that
        are none, answers that change from call to call or with the batch, and a gradient that is
        missing, not finite, or zero for every image. Answers that are all saturated, or all the
        same, are warned of. It takes two passes forward, one of them of some pictures more.
        """
        try_target(self, images)

    @classmethod
    def load(cls, spec: str, task: str = "binary", class_index: int | None = None) -> "Target":
        """A target from ``"path/to/file.py:function"`` or by the name of an embedded one.

        The function takes no arguments and returns an ``nn.Module`` (its raw output is then taken
        as logits of images in [0, 1]) or a ``Target``. It runs in the file's folder, from which it
        can import, as the module can later.

        Args:
            task: of a bare module, and of the names that are offered for an unknown one.
            class_index: of a multiclass model, the class to be told from all others.

        Raises:
            InputError: unsupported task, unknown name, missing file or function, a failing
                function, a result that is no module, or a class where there are none.
        """
        check_task(task)
        home = None
        if ".py" not in spec and "/" not in spec:
            registry.check_name("target", spec, task)
            built = registry.ask("target", spec)
        else:
            path, _, function = spec.rpartition(":")
            if not path.endswith(".py") or not function:
                raise InputError(
                    f'Target {spec!r} is not understood: write "path/to/file.py:function".'
                )
            built, home = call(Path(path).expanduser(), function)
        if not isinstance(built, Target):
            built = cls._bare(built, spec, task, class_index)
        elif class_index is not None:
            built = built.of_class(class_index)
        built.home = home
        return built

    @classmethod
    def _bare(cls, module: object, spec: str, task: str, class_index: int | None) -> "Target":
        if not isinstance(module, nn.Module):
            fix = "return a torch.nn.Module or a Target"
            if isinstance(module, Mapping):
                fix = "these are weights alone, so build the module and load_state_dict them"
            if hasattr(module, "module") and callable(module.module):
                fix = "return its .module()"  # an ExportedProgram
            raise InputError(f"{spec} returned a {type(module).__name__}: {fix}.")
        if class_index is not None:
            return cls(module, class_index=class_index)
        if task != "binary":
            raise InputError(
                f"{spec} returned a bare module, whose classes, points or parts have no names: "
                f'return Target(module, task="{task}", labels=(…)).'
            )
        return cls(module)


def _size(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(f"size must be one or two positive whole numbers, got {size!r}.")
    return sides


def _channels(name: str, values: object) -> Tensor:
    """(3, 1, 1) of a mean or a standard deviation."""
    try:
        found = torch.tensor([float(value) for value in values])
    except (TypeError, ValueError):
        found = torch.empty(0)
    if len(found) != 3:
        raise InputError(f"{name} needs three numbers, one a channel, got {values!r}.")
    if not (found.abs() <= 1).all():
        raise InputError(
            f"{name} must be that of images in [0, 1], got {list(values)}: divide mean and std by "
            "255."
        )
    return found.view(3, 1, 1)
