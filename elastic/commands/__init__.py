"""The command line: turns flags and files into calls of the other rooms, and rewords their errors."""
