r"""SSIM against reference images whose statistics are computed once.

Wang et al. (2004), per channel, with a Gaussian window F ("valid", separable):

    SSIM = (2 mu_x mu_y + C1)(2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(s_x^2 + s_y^2 + C2)),
    mu = F x,   s_x^2 = F x^2 - mu_x^2,   s_xy = F xy - mu_x mu_y,

averaged over channels and pixels; equal to ``pytorch_msssim.ssim(x, y, size_average=False)``.
The gradient with respect to x, with A1 A2 / (B1 B2) for the fraction above, is

    F^T(d mu) + 2 x F^T(d xx) + y F^T(d xy),
    d xy = 2 A1 / (B1 B2),   d xx = -SSIM / B2,
    d mu = 2 (mu_y (A2 - A1) + mu_x SSIM (B1 - B2)) / (B1 B2).

Shapes: images (B, C, H, W), float32 or float64 (half types are computed in float32), result (B,).
Cost with cached mu_y, s_y^2: three filters forward, three backward, 4 taps flops a pixel and
filter; it must read x, y, mu_y, s_y^2 and write the gradient: 20 bytes a pixel in float32.

CPU: a filter is two banded matrix products, cut into blocks of 32 output rows, so that all the
work is matrix multiplication on small dense blocks; since the mean is linear, the gradient of
each image's SSIM is formed while its maps are in cache, and backward only scales it.
GPU: `visiondx.kernels.ssim_triton`.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.core.errors import InputError
from visiondx.kernels.dispatch import attempt, choose
from visiondx.kernels.ssim_triton import TILE, TritonSSIM

K1, K2 = 0.01, 0.03
BLOCK = 32  # output rows of a CPU block; 16 to 64 measured alike
CHUNK = 2**20  # bytes of one map that the CPU path works on at a time


def ssim(x: Tensor, y: Tensor, *, backend: str | None = None) -> Tensor:
    """SSIM of each image of ``x`` with its partner in ``y``: (B,). Differentiable in x only.

    Raises:
        InputError: see `SSIMReference`.
    """
    return SSIMReference(y).ssim(x, backend=backend)


class SSIMReference:
    """Reference images (B, C, H, W) in [0, data_range] with their SSIM statistics.

    Attributes: ``images``, ``mu`` and ``var`` (B, C, H - window_size + 1, W - window_size + 1).

    Raises:
        InputError: not a floating (B, C, H, W) batch, smaller than the window, an even window,
            or images that require a gradient (the reference is a constant).
    """

    def __init__(
        self, images: Tensor, window_size: int = 11, sigma: float = 1.5, data_range: float = 1.0
    ):
        if window_size < 1 or window_size % 2 == 0:
            raise InputError(f"window_size must be odd and positive, got {window_size}.")
        if sigma <= 0 or data_range <= 0:
            raise InputError(
                f"sigma and data_range must be positive, got {sigma} and {data_range}."
            )
        _check_images(images, window_size)
        if images.requires_grad:
            raise InputError("The SSIM reference is a constant: pass images.detach().")
        self.window_size, self.sigma, self.data_range = window_size, sigma, data_range
        self.c1, self.c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        self.images = _promote(images).contiguous()
        self.mu = self._filter(self.images)
        self.var = self._filter(self.images.square()) - self.mu.square()

    def __len__(self) -> int:
        return len(self.images)

    def index(self, i: Tensor | slice) -> "SSIMReference":
        """The reference whose rows are ``images[i]``; statistics are gathered, not recomputed."""
        rows = object.__new__(SSIMReference)
        rows.__dict__.update(self.__dict__)
        rows.images, rows.mu, rows.var = self.images[i], self.mu[i], self.var[i]
        return rows

    def ssim(self, x: Tensor, *, backend: str | None = None) -> Tensor:
        """SSIM (B,) of ``x`` (B, C, H, W) with the reference images, row by row.

        Raises:
            InputError: another shape, dtype or device than the reference's.
        """
        _check_images(x, self.window_size)
        if x.shape != self.images.shape:
            raise InputError(
                f"SSIM needs x of the reference's shape {tuple(self.images.shape)}, "
                f"got {tuple(x.shape)}: gather the reference rows with .index(i)."
            )
        x32 = _promote(x)
        if x32.dtype != self.images.dtype or x.device != self.images.device:
            raise InputError(
                f"SSIM needs x like the reference ({self.images.dtype} on {self.images.device}), "
                f"got {x.dtype} on {x.device}: convert one of them."
            )
        obstacle = ""
        if self.window_size > TILE // 2:
            obstacle = f"the window of {self.window_size} is larger than {TILE // 2}"
        elif x32.dtype == torch.float64:
            obstacle = "float64 is not supported"
        chosen = choose("ssim", x, backend, obstacle)
        if chosen == "reference":
            return self._reference(x32)
        if chosen == "fused":
            return _Banded.apply(x32, self)
        if backend == "triton":  # insisted on: let a failure show
            return self._triton(x)
        return attempt("ssim", lambda: self._triton(x), lambda: self._reference(x32))

    def _taps(self) -> Tensor:
        return _gaussian(self.window_size, self.sigma, self.images.dtype, self.images.device)

    def _filter(self, maps: Tensor) -> Tensor:
        """F: Gaussian window over the last two dimensions, "valid"."""
        planes = maps.reshape(-1, 1, *maps.shape[-2:])
        taps = self._taps()
        filtered = F.conv2d(F.conv2d(planes, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
        return filtered.view(*maps.shape[:-2], *filtered.shape[-2:])

    def _reference(self, x: Tensor) -> Tensor:
        """The equation, written down; autograd does the rest."""
        mu = self._filter(x)
        var = self._filter(x * x) - mu * mu
        cov = self._filter(x * self.images) - mu * self.mu
        luminance = (2 * mu * self.mu + self.c1) / (mu * mu + self.mu**2 + self.c1)
        contrast_structure = (2 * cov + self.c2) / (var + self.var + self.c2)
        return (luminance * contrast_structure).mean((1, 2, 3))

    def _triton(self, x: Tensor) -> Tensor:
        out = TILE - self.window_size + 1
        band = _band(out, TILE, self.window_size, self.sigma, torch.float32, x.device)
        band = F.pad(band, (0, 0, 0, TILE - out))  # tl.dot wants powers of two
        return TritonSSIM.apply(x, self.images, self.mu, self.var, band, self.c1, self.c2)


def _promote(images: Tensor) -> Tensor:
    return images if images.dtype == torch.float64 else images.float()


def _check_images(images: Tensor, window_size: int) -> None:
    if not images.is_floating_point() or images.ndim != 4:
        raise InputError(
            "SSIM needs floating-point images of shape (B, C, H, W), "
            f"got {images.dtype} {tuple(images.shape)}."
        )
    if min(images.shape[-2:]) < window_size:
        raise InputError(
            f"SSIM needs images of at least {window_size} x {window_size} pixels (its window), "
            f"got {images.shape[-2]} x {images.shape[-1]}: enlarge them or choose a smaller window."
        )


@lru_cache(maxsize=32)
def _gaussian(window_size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    offset = torch.arange(window_size, dtype=torch.float64) - window_size // 2
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    return (weight / weight.sum()).to(device, dtype)


@lru_cache(maxsize=32)
def _band(
    n_out: int, n_in: int, window_size: int, sigma: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A with A[i, i + k] = taps[k]: (n_out, n_in); A x A^T is the filter of an image x."""
    taps = _gaussian(window_size, sigma, dtype, device)
    shift = torch.arange(n_in, device=device) - torch.arange(n_out, device=device)[:, None]
    inside = (shift >= 0) & (shift < window_size)
    return torch.where(inside, taps[shift.clamp(0, window_size - 1)], 0)


def _blocks(matrix: Tensor):
    """Cut a banded matrix into (output rows, input columns, dense block); the rest is zero."""
    n_out, n_in = matrix.shape
    left, right = max(0, n_out - n_in), max(0, n_in - n_out)  # of A and of A^T alike
    for start in range(0, n_out, BLOCK):
        stop = min(start + BLOCK, n_out)
        first, last = max(0, start - left), min(n_in, stop + right)
        yield slice(start, stop), slice(first, last), matrix[start:stop, first:last]


def _both_sides(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ map @ columns^T for each map of (N, H, W), both matrices banded."""
    n, height, width = maps.shape
    half = maps.new_empty(n, height, len(columns))
    flat_in, flat_out = maps.view(n * height, width), half.view(n * height, len(columns))
    for out, source, block in _blocks(columns):
        torch.mm(flat_in[:, source], block.T, out=flat_out[:, out])
    full = maps.new_empty(n, len(rows), len(columns))
    for out, source, block in _blocks(rows):
        torch.bmm(block.expand(n, -1, -1), half[:, source], out=full[:, out])
    return full


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, ref: SSIMReference) -> Tensor:
        batch, channels, height, width = x.shape
        h, w = ref.mu.shape[-2:]
        window = (ref.window_size, ref.sigma, x.dtype, x.device)
        rows, columns = _band(h, height, *window), _band(w, width, *window)
        value = x.new_empty(batch)
        gradient = torch.empty_like(ref.images) if ctx.needs_input_grad[0] else None
        step = max(1, CHUNK // (channels * height * width * x.element_size()))
        for start in range(0, batch, step):
            some = slice(start, start + step)
            xs, ys = x[some].flatten(0, 1), ref.images[some].flatten(0, 1)
            mu_y, var_y = ref.mu[some].flatten(0, 1), ref.var[some].flatten(0, 1)
            maps = torch.cat((xs, xs * xs, xs * ys))
            mu, xx, xy = _both_sides(maps, rows, columns).chunk(3)
            m = mu * mu_y
            a1 = m.mul(2).add_(ref.c1)
            a2 = xy.sub_(m).mul_(2).add_(ref.c2)
            m = mu * mu
            b2 = xx.sub_(m).add_(var_y).add_(ref.c2)
            b1 = m.addcmul_(mu_y, mu_y).add_(ref.c1)
            inverse = (b1 * b2).reciprocal_()
            s = (a1 * a2).mul_(inverse)
            value[some] = s.view(-1, channels * h * w).mean(1)
            if gradient is None:
                continue
            d = x.new_empty(3, *mu.shape)
            torch.mul(mu_y, a2.sub_(a1), out=d[0])
            d[0].addcmul_(mu.mul_(s), b1.sub_(b2)).mul_(inverse).mul_(2)
            torch.div(s, b2, out=d[1]).mul_(-2)
            torch.mul(a1, inverse, out=d[2]).mul_(2)
            g_mu, g_xx, g_xy = _both_sides(d.flatten(0, 1), rows.T, columns.T).chunk(3)
            g_mu.addcmul_(g_xx, xs).addcmul_(g_xy, ys).mul_(1 / (channels * h * w))
            gradient[some] = g_mu.view_as(gradient[some])
        ctx.gradient = gradient  # neither an input nor an output: no version to guard
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return ctx.gradient * grad[:, None, None, None], None
