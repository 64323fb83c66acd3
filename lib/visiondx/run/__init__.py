"""Running notebooks: the command line, presets, records, and the papers' own numbers."""
