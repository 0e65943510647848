"""A pretended GPU: the CPU behind CUDA's rules, to test without one what runs on a GPU."""
