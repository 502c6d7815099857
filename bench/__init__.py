"""The bench suite: `python -m bench`. One file an op; `case.py` says what a case and a variant are."""
