"""What outgate writes to an API server: what became of the objects. One more written system; sources ignore it."""
