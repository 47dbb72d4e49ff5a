"""The zoo that the other tests run over has one of every class."""

from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.regularizers.naming import catalogue


def test_every_class_of_the_catalogue_is_here():
    here = {type(term) for R in (*SEPARABLE, *TRANSCENDENTAL, *SUMS, *JOINT) for term in R.terms}
    assert {cls for name, cls in catalogue().items() if name != "Cardinality"} <= here
