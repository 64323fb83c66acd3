"""A folder with the shape of CelebA, a few tiny faces in it."""

from pathlib import Path

import torch
from PIL import Image

from visiondx_worlds.worlds import faces

ATTRIBUTES = ("Bald", "Eyeglasses", "Smiling", "Wearing_Hat")
COLUMNS = ("bald", "eyeglasses", "smiling", "hat")


def write_celeba(
    root: Path, images: int = 120, people: int = 6, seed: int = 0, size: tuple[int, int] = (18, 22)
) -> Path:
    """Make the folder; a third of the images in each split. Returns root."""
    home = root / "celeba"
    (home / "img_align_celeba").mkdir(parents=True)
    attributes = faces.sample(images, seed)
    labels = faces.labels(attributes)[:, [faces.binary.index(name) for name in COLUMNS]]
    who = torch.arange(images) % people + 1
    for i, image in enumerate((255 * faces.render(attributes)).round().byte()):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size)
        picture.save(home / "img_align_celeba" / f"{i + 1:06d}.jpg")
    names = [f"{i + 1:06d}.jpg" for i in range(images)]
    lines = [str(images), " ".join(ATTRIBUTES) + " "]
    for name, row in zip(names, labels.tolist(), strict=True):
        lines.append(name + "".join(" 1" if on else "-1".rjust(3) for on in row))
    (home / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    identity = "".join(f"{name} {person}\n" for name, person in zip(names, who.tolist()))
    (home / "identity_CelebA.txt").write_text(identity)
    parts = "".join(f"{name} {3 * i // images}\n" for i, name in enumerate(names))
    (home / "list_eval_partition.txt").write_text(parts)
    return root
