"""The difference between what is wanted and what is there, as ordered changes. Pure."""
