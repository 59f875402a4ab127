"""Allocations and recorded old values on disk, written atomically and versioned."""
