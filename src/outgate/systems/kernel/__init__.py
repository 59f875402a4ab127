"""Links, addresses, routes, rules and neighbours in the kernel, by netlink."""
