"""transformers: loading its models, and reading its encoders of images, video and text."""
