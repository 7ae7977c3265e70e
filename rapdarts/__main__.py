"""Entry point of `python -m rapdarts`, which is the same as `rapdarts`."""

from rapdarts.cli.main import main

raise SystemExit(main())
