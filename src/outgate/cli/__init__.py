"""The command `outgate`: arguments, exit codes, pages."""
