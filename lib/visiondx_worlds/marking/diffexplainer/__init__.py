"""DiffExplainer against the truth: what explanations show, and which features are spurious."""
