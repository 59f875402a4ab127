"""The laboratory of network namespaces, from which the demo and the kernel tests are built."""
