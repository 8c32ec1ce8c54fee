"""``python -m birthmark``: the command line."""

from birthmark.cli import main

raise SystemExit(main())
