"""What is in a user's folder: items, captions, narration."""
