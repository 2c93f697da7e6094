"""A drawing of each kind of result, with matplotlib."""
