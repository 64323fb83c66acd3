"""A target tried on a few images: what a diagnosis could not use is refused, in a sentence."""

import re
import warnings

import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError, reason
from visiondx.models.modes import in_train_mode
from visiondx.models.outputs import TINY, answers, sensitive
from visiondx.models.probabilities import check_logits, check_probabilities, pictures

SURE = 1e-4  # from 0 or 1: an answer that hardly moves
ALIKE = 1e-3  # between all answers, if they hardly depend on the image
TOLERANCE = {"cpu": 1e-3, "cuda": 1e-2}  # of the largest output, for the same image once more
HALF = 5e-2  # the same, in half precision
FIXES = (  # of errors that PyTorch raises, by their text
    (
        r"to have 1 channels?, but got 3",
        "it takes grey images, so put a layer before it, "
        "nn.Sequential(torchvision.transforms.Grayscale(), module).eval()",
    ),
    (
        r"to have \d+ channels?, but got 3",
        "images have three channels, so make the others in its forward pass",
    ),
    (r"of memory|(allocate|enough) memory|ALLOC_FAILED", "a few images do not fit, so free memory"),
    (r"nference tensor", "no gradient passes torch.inference_mode, so leave that out"),
    (r"numpy\(\)", "no gradient passes NumPy, so write its forward pass in torch alone"),
    (
        r"device|NVIDIA|CUDA",
        "keep its tensors with register_buffer, and name no device in its forward pass",
    ),
    (r"dtype|scalar type|should be the same", "make it one precision, with module.float()"),
)


def try_target(target, images: Tensor) -> None:
    """See ``Target.check``, which this is."""
    check_images(images)
    _check_modules(target.module)
    images, n = images.detach(), len(images)
    with torch.enable_grad():
        tried = images.clone().requires_grad_(True)
        out = _ask(target, tried)
        logits = target.read(out, tried)
    if not torch.isfinite(out).all():
        raise InputError(
            f"The target returned NaN or infinity for {_bad(out)} of {n} ordinary images: check "
            "its weights and its preprocessing."
        )
    if target.probabilities:
        check_probabilities(target, out)
    with torch.no_grad():
        seen, again = _ask_again(target, images, out.detach())
        if target.probabilities is None:
            check_logits(target, out, again, images)
        f = answers(target.read(again, seen), target.task)
    _check_gradient(target, out, logits, tried)
    _warn(target, f, n)


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


def _check_modules(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if ".quantized." in f"{type(part).__module__}.":
            raise InputError(
                f"The target is quantised ({type(part).__name__} at {_place(name)}), and whole "
                "numbers have no gradient: return the float module that it was made from."
            )
    name = in_train_mode(module)
    if name is not None:
        raise InputError(
            f"The target is in train mode ({_place(name)}), so dropout and batch norm would change "
            "its answers: call .eval() on it before returning it."
        )


def _ask(target, images: Tensor) -> object:
    try:
        return target.raw(images)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_failure(error, images, target.module)) from error


def _failure(error: Exception, images: Tensor, module: nn.Module) -> str:
    """What went wrong in the module, and what mends it."""
    text = str(error)
    if ".size()[0]" in text:  # a guard of torch.export
        return _one_batch(len(images), error)
    weights = any(parameter.is_inference() for parameter in module.parameters())
    fix = "it must take one float tensor (B, 3, H, W), so make that call run"
    if isinstance(error, ImportError):
        fix = "install it, or put it beside the target's file"
    elif weights and "nference tensor" in text:
        fix = "its weights were made in torch.inference_mode, so build and load it outside of that"
    elif found := next((fix for pattern, fix in FIXES if re.search(pattern, text)), None):
        fix = found
    elif isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        fix = "set size to the height and width that it expects"
    return f"The target failed on images of shape {tuple(images.shape)} ({reason(error)}): {fix}."


def _one_batch(n: int, error: Exception) -> str:
    return (
        f"The target failed on a batch of {n} images ({reason(error)}) and takes one size only: "
        "export or trace it with a batch dimension that is free (dynamic_shapes)."
    )


def _ask_again(target, images: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """The images once more, in a batch with other pictures: these, and what is returned for them.

    Raises:
        InputError: the batch may not be larger, or the same images get another answer.
    """
    n = len(images)
    seen = torch.cat([images, pictures(images)])
    try:
        again = target.raw(seen)
    except Exception:  # is it the pictures, or their number?
        seen = torch.cat([images, images[:1]])
        try:
            again = target.raw(seen)
        except Exception as error:
            raise InputError(_one_batch(len(seen), error)) from error
    if len(again) != len(seen):
        raise InputError(
            f"The target returned {len(again)} answers for {len(seen)} images, after {n} for {n}: "
            "export or trace it with a batch dimension that is free (dynamic_shapes)."
        )
    bound = HALF if target.half_precision else TOLERANCE.get(images.device.type, HALF)
    bound = bound * float(out.abs().max()) + 1e-6
    apart = float((again[:n] - out).abs().max())
    if apart <= bound:
        return seen, again
    alone = float((target.raw(images) - out).abs().max())
    if alone <= bound:
        raise InputError(
            f"The target's answer to an image changes by {apart:.2g} with the other images of its "
            "batch: let batch norm use its running statistics."
        )
    raise InputError(
        f"The target answers the same images differently from one call to the next, by {alone:.2g}"
        ": switch off what is random in its forward pass, such as F.dropout without "
        "training=self.training, and trace or export it in eval mode only."
    )


def _check_gradient(target, out: Tensor, logits: Tensor, images: Tensor) -> None:
    n, gradient = len(images), None
    if logits.requires_grad:
        try:
            with torch.enable_grad():
                answer = sensitive(logits, target.task).sum()
            (gradient,) = torch.autograd.grad(answer, images, allow_unused=True)
        except RuntimeError as error:
            raise InputError(
                f"The target's gradient cannot be computed ({reason(error)}): write its forward "
                "pass without operations in place, and with such as have a gradient."
            ) from error
    if gradient is None or not gradient.any():
        raise InputError(_no_gradient(target, out, gradient))
    if not torch.isfinite(gradient).all():
        raise InputError(
            f"The target's gradient is NaN or infinite for {_bad(gradient)} of {n} images: look "
            "for a log or square root of zero in its forward pass."
        )
    still = n - int(gradient.flatten(1).any(1).sum())
    if still and target.probabilities:
        warnings.warn(
            f"The target has no gradient for {still} of {n} images, where its probabilities are 0 "
            "or 1 in full precision: return the logits before the sigmoid or softmax instead.",
            stacklevel=4,
        )


def _no_gradient(target, out: Tensor, gradient: Tensor | None) -> str:
    said = "The target has no gradient with respect to its images, which the search needs: "
    if target.probabilities and bool(((out <= TINY) | (out >= 1 - TINY)).all()):
        return (
            said + "its probabilities are saturated, all exactly 0 or 1, so return the logits "
            "before the sigmoid or softmax, without probabilities=True."
        )
    if gradient is None:
        return said + "remove torch.no_grad, inference_mode, detach or NumPy from its forward pass."
    if bool((out == out[:1]).all()):
        return said + "it answers all images alike, so look for a last layer of zeros or clamping."
    return said + "it is zero, so look for rounding, argmax, quantising or clamping."


def _warn(target, f: Tensor, n: int) -> None:
    """Of answers that a search will hardly move: f(x), (M,) or (M, K), of n images and pictures."""
    if target.task not in ("binary", "multiclass"):
        return
    chance = f if target.task == "multiclass" else torch.stack([f, 1 - f], 1)
    chance = chance[chance.isfinite().all(1)]  # of black, some models make NaN
    advice = (
        "if the module was made for images in 0..255, set std=(1 / 255,) * 3, otherwise look at "
        "its preprocessing."
    )
    if (chance[:n].amax(1) >= 1 - SURE).all():
        warnings.warn(
            f"The target's answers to {n} images are saturated, all within {SURE:g} of 0 or 1, "
            f"where a search hardly moves them: {advice}",
            stacklevel=4,
        )
    elif (chance.amax(0) - chance.amin(0)).max() <= ALIKE:
        warnings.warn(
            f"The target gives all pictures the same answer within {ALIKE:g}, black, white and "
            f"noise among them: {advice}",
            stacklevel=4,
        )


def _place(name: str) -> str:
    return f"module.{name}" if name else "module"


def _bad(values: Tensor) -> int:
    """Number of rows (B, ...) with a value that is not finite."""
    return int((~torch.isfinite(values)).reshape(len(values), -1).any(1).sum())
