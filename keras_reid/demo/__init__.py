"""Search page: `python -m keras_reid.demo --gallery=people.db`."""
