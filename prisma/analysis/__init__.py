"""The analyses, a folder for each kind of question. Each is a function that returns a `Result` of the same name."""
