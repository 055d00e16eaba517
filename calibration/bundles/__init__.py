"""Bundles and graphs as files: what every room that writes them shares."""
