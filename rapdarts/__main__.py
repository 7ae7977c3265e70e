"""`python -m rapdarts` is `rapdarts`."""

from rapdarts.cli import main

raise SystemExit(main())
