"""The round - read, plan, compare, write, verify - and all that moves: loop, clock, back-off, brake, announcements."""
