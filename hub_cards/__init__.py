"""Templates (Jinja2) of what is written on the pages of published mice."""
