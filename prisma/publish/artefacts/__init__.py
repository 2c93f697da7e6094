"""What is published beside runs: data sets, and what belongs to a model of somebody, such as a tuned lens."""
