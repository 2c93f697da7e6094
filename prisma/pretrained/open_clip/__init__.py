"""open_clip: loading its image-text pairs, and reading their towers."""
