"""`nitro-analyze list`: what exists."""

from __future__ import annotations

import click


def _metrics() -> list[tuple[str, str]]:
    from nitro.analyzer.analysis import all_metrics

    return [(name, metric.title) for metric in all_metrics() for name in metric.provides]


def _causes() -> list[tuple[str, str]]:
    from nitro.analyzer.causes import TEXTS

    return [(cause.id, text.meaning) for cause, text in TEXTS.items()]


def _reports() -> list[tuple[str, str]]:
    from nitro.analyzer.stats import known_reports

    return [(name, report.title) for name, report in known_reports().items()]


def _tables() -> list[tuple[str, str]]:
    from nitro.analyzer.tables import TABLES

    return [(table.name, table.meaning) for table in TABLES]


def _rules() -> list[tuple[str, str]]:
    from nitro.analyzer.analysis import all_rules

    return [(rule.id, f"{rule.title}: {rule.threshold}") for rule in all_rules()]


def _formats() -> list[tuple[str, str]]:
    return [("nsys-sqlite", "Nsight Systems SQLite export, 2020 and newer; plain, .xz, .gz or .zst")]


_KINDS = {
    "metrics": _metrics,
    "rules": _rules,
    "causes": _causes,
    "reports": _reports,
    "tables": _tables,
    "formats": _formats,
}


@click.command("list")
@click.argument("kind", type=click.Choice(sorted(_KINDS)), default="metrics")
def command(kind: str) -> None:
    """List what exists: metrics, rules, idle causes, stats reports, tables of a trace, input formats."""
    rows = _KINDS[kind]()
    width = max(len(name) for name, _ in rows)
    for name, meaning in rows:
        click.echo(f"{name:<{width}}  {meaning}")


COMMAND = command
