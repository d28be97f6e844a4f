"""Readers: one file an input format. A reader recognises its input by content and turns it into a `Trace`."""
