"""The world that outgate reads and writes: one folder per system, and it alone knows the library of that system."""
