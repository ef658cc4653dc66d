"""The checker that jaxtyping's import hook puts around every function of the packages while the tests run."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number may stand for a float
