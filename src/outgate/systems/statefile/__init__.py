"""What must outlive the program: the ledger and a few small documents on disk, written atomically and versioned."""
