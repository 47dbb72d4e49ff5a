"""Rows from anything: reading, order, device, and the activation store."""
