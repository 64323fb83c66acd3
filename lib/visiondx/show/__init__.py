"""What people see: figures, overlays, and the report of a diagnosis."""
