from visiondx.worlds.animals import animals, animals_balanced
from visiondx.worlds.faces import faces
from visiondx.worlds.scenes import scenes

__all__ = ["animals", "animals_balanced", "faces", "scenes"]
