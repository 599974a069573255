"""Region detectors and how boxes are chosen."""
