"""Pictures: figures of results, and the viewer that runs in a browser."""
