"""Tokenizers and word vectors."""
