"""LLM2Loss against the truth: black boxes, what sentences mean, scores."""
