"""Speaking to an API server: where it is, as whom, and what its answers mean. Knows no kind and decides nothing.

Nothing else in the house imports aiohttp, and this room only when a connection is opened.
"""
