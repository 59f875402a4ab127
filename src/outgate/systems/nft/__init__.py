"""The nftables table `inet outgate`, rendered and read back as JSON."""
