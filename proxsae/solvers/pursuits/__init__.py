"""Greedy pursuits and exchanges: methods for at most k non-zeros."""
