"""`python -m impactreg`: the command line."""

from impactreg.cli import main

raise SystemExit(main())
