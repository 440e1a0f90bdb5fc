"""Small programs around the models, each run by the tests: `python -m examples.NAME`."""
