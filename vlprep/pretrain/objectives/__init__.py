"""The pretraining tasks, one file a family, each with its formula and its source."""
