"""Dataset Interfaces (Vendrow, Jain et al., 2023): a word for each class of your data, painted
under each described shift, and how well models do there.
"""
