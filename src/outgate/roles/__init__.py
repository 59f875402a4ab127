"""Wiring: which sources, plans and systems make up one role."""
