"""Intent from a live API server: each kind is listed once and then watched, and only complete parts are given on."""
