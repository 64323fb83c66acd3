"""ZOOM against the truth: interventions, judges, planted biases and their controls."""
