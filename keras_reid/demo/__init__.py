"""A page to search people on: `python -m keras_reid.demo --gallery=people.db`."""
