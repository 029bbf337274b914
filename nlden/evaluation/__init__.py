"""Comparing results and showing them."""
