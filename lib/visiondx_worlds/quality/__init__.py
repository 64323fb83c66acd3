"""How good the embedded models are, by subject."""
