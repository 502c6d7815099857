"""An evaluation from its checks to its files: what is decoded, in which order, and what is kept of it."""
