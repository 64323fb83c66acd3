"""What the explorers show of the embedded models and of the truth."""
