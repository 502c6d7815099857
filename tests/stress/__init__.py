"""Random calls of every op against the reference: `make stress`."""
