"""ZOOM: Zero-shot Model Diagnosis (Luo, Wang et al., CVPR 2023), single attributes.

words -> `directions.directions` (Eqs. 1, 2; with M from `relevance.relevance`) -> `search.search`
(Eqs. 3-10) -> `sensitivity.Sensitivity` (Eq. 11). `truth` and `edits` say how good that is;
`diagnose.diagnose` is all of it.
"""
