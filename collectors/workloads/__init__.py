"""Programs to profile; each runs on its own, with nothing of Nitro installed."""
