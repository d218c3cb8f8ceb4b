"""`python -m keras_reid.demo --gallery=people.db`: a page to search people on, on this machine.

The gallery is one that `search.py enrol` filled, and the model that of --run or --saved_model, else
the one that comes with the package.
"""

from keras_reid.demo.command import run

if __name__ == "__main__":
    run()
