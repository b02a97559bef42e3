"""A run folder: what it is, where its files lie, how they are kept. Nothing here needs Ray."""
