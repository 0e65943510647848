"""A pretended GPU: the CPU behind CUDA's rules, so that what runs on a GPU is tested without one."""
