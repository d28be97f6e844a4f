"""Renderers: one file an output. They draw blocks and know nothing of what is in them."""
