"""Oracles: each judges a prox by its own evidence."""
