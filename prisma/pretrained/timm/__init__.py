"""timm: loading its models, and reading its vision transformers."""
