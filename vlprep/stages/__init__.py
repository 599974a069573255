"""One file a stage: plan, work, commit."""
