"""Dataset Interfaces against the truth: the data set under a shift as the renderer draws it, a pool
to retrieve from, and what judges see of class, own state and shift.
"""
