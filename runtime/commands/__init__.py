"""The subcommands that need a bundle and nothing else: run, say, inspect."""
