"""The command line. Says in flags and keys what the other rooms say in arguments, and does nothing itself."""
