"""`python -m rapdarts` is `rapdarts`."""

from rapdarts.cli.main import main

raise SystemExit(main())
