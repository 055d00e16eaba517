"""Two profiles side by side: what changed, and what only seems so."""
