"""The command line `primal-dual`."""

from primal_dual.cli.commands import app, main

__all__ = ["app", "main"]
