"""Rules: one file each, which declares `RULE`. They look at measurements, never at the trace."""
