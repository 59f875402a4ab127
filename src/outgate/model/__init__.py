"""Words: frozen values that every room speaks, built from the standard library alone."""
