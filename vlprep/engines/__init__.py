"""Where a stage's work runs."""
