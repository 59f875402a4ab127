"""Desired, Changes, Trace and Findings as text, table and JSON; it shows and never decides."""
