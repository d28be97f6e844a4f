"""The words of the outputs themselves: labels, buttons, and what stands around figures and tables.

Templates and renderers hold no words of their own, so that every word has one place and can be translated.
"""

from __future__ import annotations

from collections.abc import Mapping

from nitro.analyzer.message import Message, message

WORDS: Mapping[str, Message] = {
    "language_name": message("English"),
    "stake": message("at stake"),
    "why": message("why"),
    "to_do": message("to do"),
    "limits": message("limits"),
    "confidence_high": message("confidence high"),
    "confidence_medium": message("confidence medium"),
    "confidence_low": message("confidence low"),
    "severity_high": message("high"),
    "severity_medium": message("medium"),
    "severity_low": message("low"),
    "severity_info": message("note"),
    "figure": message("Figure {{number}}"),
    "table": message("Table {{number}}"),
    "contents": message("Contents"),
    "about": message("About this report"),
    "made_by": message("Made by"),
    "command": message("Command"),
    "several": message("Side by side"),
    "source": message("Source"),
    "skip": message("Skip to the report"),
    "language": message("Language"),
    "theme": message("Theme"),
    "theme_auto": message("automatic"),
    "theme_light": message("light"),
    "theme_dark": message("dark"),
    "search_table": message("Search this table"),
    "rows_found": message("{{shown}} of {{total}} rows"),
    "rows_more": message("Show all {{total}} rows"),
    "rows_fewer": message("Show fewer rows"),
    "rows_left_out": message("More rows in the HTML, CSV and JSON outputs: {{count}}."),
    "sort_by": message("Sort by this column"),
    "save_svg": message("Save as SVG"),
    "save_png": message("Save as PNG"),
    "no_script": message("The figures and the timeline need JavaScript; the tables do not."),
}
