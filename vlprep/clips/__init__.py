"""Clip encoders (2D and 3D) and how clips are cut."""
