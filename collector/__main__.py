"""``python -m collector``: the command line, as ``collector`` is."""

from collector.cli.main import main

main()
