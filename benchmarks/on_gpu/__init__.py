"""One command for a machine with a GPU: `python -m benchmarks.gpu`."""
