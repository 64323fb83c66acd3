"""Counterfactual training (ZOOM, section 3.5): the game, its bank, its result."""
