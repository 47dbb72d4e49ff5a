"""Files of ours and of other libraries, in and out: written whole or not at all, checked before they are used."""

from proxsae.formats.convert import load, save

__all__ = ["load", "save"]
