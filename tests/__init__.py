"""The tests; a package, so that they can import from each other."""
