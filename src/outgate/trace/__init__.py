"""A packet's walk through desired state or through a reading, step by step. Pure."""
