"""Hierarchical k-means and the visual vocabulary."""
