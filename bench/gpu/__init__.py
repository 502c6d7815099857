"""`make gpu`: build, test, tune, measure and sanitize on a machine with a CUDA GPU: `python -m bench.gpu`."""
