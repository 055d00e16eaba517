"""What a machine has to run bundles with, and what to install where something is missing."""
