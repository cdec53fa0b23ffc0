"""The tests; a package, so that `benchmarks.chaos` can use the harness of `tests.lifecycle`."""
