"""`python -m elastic` is the `elastic` command."""

import sys

from elastic.commands.cli import main

sys.exit(main())
