"""Entry point of `python -m rapdarts`, which does the same as the command `rapdarts`."""

from rapdarts.cli.entry import main

raise SystemExit(main())
