"""Batching, masking, models, objectives and the trainer."""
