"""LLM2Loss: Leveraging Language Models for Explainable Model Diagnostics (Ardeshir, 2023).

images -> `cache.embed` (CLIP's image tower) and a black box's losses -> `data.LossData` ->
`model.LossModel` (regressor, Eq. 1; ranker, Eqs. 2-4; in-distribution classifier, section 3.1.3)
-> sentences, through CLIP's text tower: `ask`, `compare` and `audit` (section 3.2).
"""
