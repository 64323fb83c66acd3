"""Pictures of a session, kept with the recipe that makes them again."""

import io
import json
from pathlib import Path

from PIL import Image
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, reading
from visiondx.widgets.session import EditSession, View

SIZE = 320  # least pixels of a shown picture's longer side


def picture(image: Tensor, size: int = SIZE) -> Image.Image:
    """An image (3, H, W) in [0, 1], smoothly enlarged by a whole number to ``size`` or more."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    small = Image.fromarray(pixels)
    scale = -(-size // max(small.size))
    return small.resize((scale * small.width, scale * small.height), Image.Resampling.LANCZOS)


def png(image: Tensor, size: int = SIZE) -> bytes:
    """``picture`` as a PNG file's bytes, written fast rather than small."""
    buffer = io.BytesIO()
    picture(image, size).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def save(session: EditSession, folder: str | Path) -> Path:
    """Write the present picture (PNG) and, beside it, what makes it again (JSON).

    Returns:
        The PNG, ``picture_001.png`` or the next free number.
    """
    folder, number = Path(folder), 1
    while (path := folder / f"picture_{number:03d}.png").exists():
        number += 1
    view = session.view()
    recipe = {
        "prompts": dict(zip(session.attributes, session.w.tolist(), strict=True)),
        "neutral": session.neutral,
        "directions": session.estimator,
        "channels": session.channels,
        "seed": session.seed,
        "target": session.target_name,
        "p": view.p,
        "p_original": view.p_original,
        "ssim": view.ssim,
        "generator": session.generator.fingerprint,
        "encoder": session.encoder.fingerprint,
    }
    with atomic_write(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(recipe, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_write(path) as part:
        part.write_bytes(png(view.image))
    return path


def restore(session: EditSession, path: str | Path) -> View:
    """The picture of a JSON file that ``save`` wrote, under the session's own target.

    Raises:
        InputError: no such file, a damaged one, or a picture of another generator or encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file at {path}: check the path.")
    with reading(path, "open the JSON file of a saved picture"):
        recipe = json.loads(path.read_text("utf-8"))
        fields = ("prompts", "neutral", "directions", "seed", "channels", "generator", "encoder")
        prompts, neutral, directions, seed, channels, *models = (recipe[key] for key in fields)
        words, weights = list(prompts), list(prompts.values())
    for model, made in zip(("generator", "encoder"), models, strict=True):
        if made != getattr(session, model).fingerprint:
            raise InputError(f"{path.name} was made with another {model}: open that one.")
    session.channels = channels
    session.apply(words, neutral, directions)
    session.new_face(seed)
    return session.set(weights)
