"""`python -m tfprune` is the command line."""

from tfprune.cli import main

main()
