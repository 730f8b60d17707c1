"""`python -m oneloop`."""

from oneloop.cli.main import main

main()
