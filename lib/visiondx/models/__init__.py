"""The models that the methods work with: encoder, generator, targets, judges, and their weights."""
