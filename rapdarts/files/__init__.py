"""Files, read with strict checks and written completely or not at all."""
