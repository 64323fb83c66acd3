"""ZOOM: Zero-shot Model Diagnosis (Luo, Wang et al., CVPR 2023).

words -> `directions.directions` (Eqs. 1, 2; with M from `relevance.relevance`), or at once
`gradient_directions.gradient_directions` -> `search.search` (Eqs. 3-10; one attribute at a time) ->
`sensitivity.Sensitivity` (Eq. 11), or `multi.multi_search` (section 4.4; all together).
`diagnose.diagnose` is the diagnosis by single attributes; `counterfactual_training` is Eq. 12.
"""
