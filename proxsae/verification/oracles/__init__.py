"""Oracles: each answers from its own evidence whether a prox is right."""
