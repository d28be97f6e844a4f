"""`nitro-analyze explain NAME`: what an id means, where it comes from, what it leaves out."""

from __future__ import annotations

import click


@click.command("explain")
@click.argument("name")
def command(name: str) -> None:
    """Explain a metric, rule, idle cause, stats report, sampled metric or table of a trace."""
    from nitro.analyzer.glossary import explain

    entry = explain(name)
    click.echo(f"{entry.name} ({entry.kind}): {entry.title}\n")
    click.echo(entry.definition)
    if entry.facts:
        width = max(len(label) for label, _ in entry.facts)
        click.echo()
        for label, text in entry.facts:
            click.echo(f"{label:<{width}}  {text}")


COMMAND = command
