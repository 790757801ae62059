"""Class activation maps: the formula (reference), the fast CPU path, and where maps lie."""
