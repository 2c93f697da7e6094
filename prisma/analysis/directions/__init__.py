"""Directions and subspaces of an activation: what they stand for, and what happens when they are changed."""
