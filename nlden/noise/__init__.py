"""Noise: making it and measuring it."""
