"""The networks, each put together from the shared embeddings, encoder and heads."""
