"""A check as text, Markdown, JUnit XML and GitHub annotations; baselines and trends as text."""
