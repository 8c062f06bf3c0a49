"""One file per command. Commands only parse, call a package below `sglora_cli` and print."""
