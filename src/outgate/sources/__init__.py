"""Where intent comes from: each source parses its objects into the same Intent, with their origins."""
