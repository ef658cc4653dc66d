"""The models of the benchmarks."""
