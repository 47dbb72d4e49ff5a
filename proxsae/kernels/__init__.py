"""The few loops that must be fast: a plain version, a compiled version that is tested against it, one dispatcher."""
