"""A target tried on a few images: what a diagnosis could not use is refused, in a sentence.

**Probabilities taken for logits** show nowhere but in f(x) = sigmoid(p), from .5 to .731. A target
that does not say what it returns is refused if its last operation, views aside, is a sigmoid or a
softmax: autograd's graph tells. Where the graph does not tell (compiled, scripted, 1 - p), it is
refused if all that it returns lies in [0, 1], for the images, for black, white and noise, and for
pictures a hundred times too strong, which a logit would follow far out. Several outputs must also
sum to 1, or else vary by more than a tenth, like a single one: an untrained network behind a layer
norm answers .3 to everything, and means it.
"""

import re
import warnings

import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError, reason
from visiondx.models.modes import in_train_mode
from visiondx.models.outputs import TINY, answers, sensitive

STRONG = 100.0  # times white
VARIES = 0.1  # at least, if values in [0, 1] are to be taken for probabilities
SURE = 1e-4  # from 0 or 1: an answer that hardly moves
ALIKE = 1e-3  # between all answers, if they hardly depend on the image
TOLERANCE = {"cpu": 1e-3, "cuda": 1e-2}  # of the largest output, for the same image once more
HALF = 5e-2  # the same, in half precision
VIEW = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Alias|Squeeze|Unsqueeze|Select|Slice|Expand|ToCopy|Clone|"
    r"Permute|Transpose|T|Index|Clamp|ClampMin|ClampMax)Backward\d+"
)
LOGITS = re.compile(r"(Addmm|Mm|Mv|Bmm|Baddbmm|Convolution|LogSoftmax)Backward\d+")  # no bounds
BOUNDED = {"Sigmoid": "a sigmoid", "Hardsigmoid": "a sigmoid", "Softmax": "a softmax"}
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
        _check_probabilities(target, out)
    with torch.no_grad():
        seen, again = _ask_again(target, images, out.detach())
        if target.probabilities is None:
            _check_logits(target, out, again, images)
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


def _check_probabilities(target, out: Tensor) -> None:
    if out.min() < -1e-3 or out.max() > 1 + 1e-3:
        raise InputError(
            f"The target is declared to return probabilities but returned values from "
            f"{out.min():.3g} to {out.max():.3g}: leave out probabilities=True for logits."
        )
    total = out.sum(1) if _exclusive(target, out) else torch.ones(1)
    if (total - 1).abs().max() > 2e-2:
        raise InputError(
            f"The target is declared to return probabilities but they sum to {total.min():.3g} to "
            f"{total.max():.3g} an image, not to 1: return the logits, without probabilities=True."
        )


def _exclusive(target, out: Tensor) -> bool:
    """Whether the columns of its output exclude each other, so that probabilities sum to 1."""
    return target.task != "keypoints" and out.ndim > 1 and out.shape[1] > 1


def _ask_again(target, images: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """The images once more, in a batch with other pictures: these, and what is returned for them.

    Raises:
        InputError: the batch may not be larger, or the same images get another answer.
    """
    n = len(images)
    seen = torch.cat([images, _pictures(images)])
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


def _pictures(images: Tensor) -> Tensor:
    """Black, white, two of noise and two negatives, (≤ 6, 3, H, W) in [0, 1], all unlike."""
    noise = torch.rand(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    black = torch.zeros_like(images[:1])
    return torch.cat([black, 1 - black, noise, 1 - images[:2]])


def _check_logits(target, out: Tensor, again: Tensor, images: Tensor) -> None:
    """Refuse probabilities, see above."""
    last = _last_operation(out)
    if last == "LogSigmoidBackward0":
        raise InputError("The target ends in a log-sigmoid: return the logit that it is made of.")
    name = BOUNDED.get(last.removesuffix("Backward0"))
    if name is None and not LOGITS.fullmatch(last):
        name = _bounded(target, again, images)
    if name is None:
        return
    if name == "a sigmoid" and _exclusive(target, out):
        raise InputError(
            f"The target ends in {name}, {out.shape[1]} answers each for itself, but a "
            f"{target.task} target needs logits: return what comes before it."
        )
    raise InputError(
        f"The target seems to end in {name}, so its answers in [0, 1] would be taken for logits: "
        "set probabilities=True in Target(module, …), or False if they are logits all the same."
    )


def _last_operation(out: Tensor) -> str:
    """Its name in autograd's graph, views aside: "SigmoidBackward0"; "" if there is none."""
    node = out.grad_fn
    while node is not None and VIEW.fullmatch(node.name()) and node.next_functions:
        node = node.next_functions[0][0]
    return "" if node is None else node.name()


def _bounded(target, again: Tensor, images: Tensor) -> str | None:
    """What it seems to end in, if nothing brings it out of [0, 1]."""
    values = [again]
    if not _inside(again):
        return None
    strong = torch.cat([images[:1] * 0 - 1, images[:1] * 0 + 1, 2 * _pictures(images)[2:4] - 1])
    try:
        values.append(target.raw(STRONG * strong))
    except Exception:  # nobody promised to take these
        return None
    values = torch.cat([v.reshape(len(v), -1) for v in values]).view(-1, *again.shape[1:])
    if not _inside(values):
        return None
    if _exclusive(target, values) and ((values.sum(1) - 1).abs() < 1e-2).all():
        return "a softmax"
    return "a sigmoid" if values.max() - values.min() > VARIES else None


def _inside(values: Tensor) -> bool:
    """Whether all lie in [0, 1]; not so for NaN."""
    return bool(((values >= -SURE) & (values <= 1 + SURE)).all())


def _check_gradient(target, out: Tensor, logits: Tensor, images: Tensor) -> None:
    n, gradient = len(images), None
    if logits.requires_grad:
        try:
            with torch.enable_grad():
                answer = sensitive(logits, target.task).sum()
            (gradient,) = torch.autograd.grad(answer, images, allow_unused=True)
        except (RuntimeError, NotImplementedError) as error:
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
