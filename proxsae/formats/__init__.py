"""Files of ours and of other libraries, in and out: written whole or not at all, checked before they are used."""

from proxsae.formats.convert import load, save
from proxsae.formats.largest_values import LargestValues
from proxsae.formats.saebench_object import as_saebench
from proxsae.formats.saelens_converter import saelens_converter, saelens_hub_converter
from proxsae.formats.saelens_object import as_saelens
from proxsae.formats.without_prox import SAEWithoutProx

__all__ = [
    "LargestValues",
    "SAEWithoutProx",
    "as_saebench",
    "as_saelens",
    "load",
    "saelens_converter",
    "saelens_hub_converter",
    "save",
]
