"""Squared distances in blocks and the nearest rows: of NumPy arrays, and of tensors in a graph."""
