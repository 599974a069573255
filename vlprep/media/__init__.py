"""Image and video files in, arrays out."""
