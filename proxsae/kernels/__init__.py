"""The few loops that must be fast: a plain version, a compiled version held equal to it, one dispatcher."""
