"""What runs in the sandbox, beside programs that nobody has read. The standard library alone."""
