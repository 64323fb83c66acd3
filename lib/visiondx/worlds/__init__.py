from visiondx.worlds.faces import faces

__all__ = ["faces"]
