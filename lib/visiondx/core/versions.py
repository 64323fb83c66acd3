"""What a result depends on: the versions of packages, and the device."""

import importlib.metadata
import platform

import visiondx

PACKAGES = ("torch", "torchvision", "triton", "open_clip_torch", "timm", "numpy")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"visiondx": visiondx.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # triton exists on Linux only
    return found


def device() -> str:
    """What torch computes on, in words."""
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
