"""What tests of all folders share; no tests of its own."""
