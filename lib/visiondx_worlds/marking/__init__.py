"""Each method marked against the truth: a folder a method."""
