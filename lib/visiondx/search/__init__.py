"""The one descent loop: named terms over any variable, rows that do not touch each other."""
