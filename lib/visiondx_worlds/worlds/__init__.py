"""The procedural worlds: renderers that know the attributes of every image they draw."""

from visiondx_worlds.worlds.animals import animals, animals_balanced
from visiondx_worlds.worlds.faces import faces
from visiondx_worlds.worlds.scenes import scenes

__all__ = ["animals", "animals_balanced", "faces", "scenes"]
