"""The commands: one file each, which declares `COMMAND`, a click command. Nothing is computed here."""
