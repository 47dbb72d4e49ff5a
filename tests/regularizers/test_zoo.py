"""The zoo that the other tests run over has one of every class."""

from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.regularizers.naming import CLASSES


def test_every_class_of_the_catalogue_is_here():
    written_by_the_user = {"Numeric", "FromCvxpy"}
    here = {type(term) for R in (*SEPARABLE, *TRANSCENDENTAL, *SUMS, *JOINT) for term in R.terms}
    assert {cls for name, cls in CLASSES.items() if name not in {"Cardinality", *written_by_the_user}} <= here
