"""Sections of the report about a comparison, one file each; see `comparison.ComparisonSection`."""
