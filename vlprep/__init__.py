"""vlprep: raw images, videos and captions into vision-and-language pretraining data, and pretraining on it."""

__version__ = "0.1.0"
