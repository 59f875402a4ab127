"""`python -m outgate` is the command `outgate`."""

from outgate.cli.main import main

main()
