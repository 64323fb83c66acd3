"""How every file in ``data/weights`` was made."""
