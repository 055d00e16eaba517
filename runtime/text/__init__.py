"""Text on its way in and out: tokens, prompts, and what is spoken of what is written."""
