"""The round: read, plan, compare, write, verify; with its loop, clock, back-off and brake."""
