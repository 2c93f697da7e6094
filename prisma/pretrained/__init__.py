"""Models of timm, transformers and open_clip: loaded by their library, converted, and compared with it."""
