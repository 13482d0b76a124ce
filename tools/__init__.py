"""Tools of the checkout, used by ``./dev``; not part of the program."""
