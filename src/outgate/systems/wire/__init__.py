"""Frames that outgate itself puts on a link: announcements of addresses, and probes for duplicates."""
