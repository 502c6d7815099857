"""`python -m elastic.commands.replicate`."""

from elastic.commands.replicate.command_line import main

if __name__ == "__main__":
    main()
