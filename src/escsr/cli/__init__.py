"""The command line, ``escsr``: one file per command.

Importing it loads typer and nothing heavy; a command imports what it needs when it runs, so that
``escsr --help`` answers at once.
"""

from escsr.cli.app import main

__all__ = ["main"]
