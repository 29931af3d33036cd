"""Tests that strike real processes; their stack ends with the last of them."""
