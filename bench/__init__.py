"""The bench suite: `python -m bench`. `harness/case.py` says what a case and a variant are.

`ops` has what is measured, `harness` how, `output` what comes of it, `gpu` the run on a GPU machine.
"""
