"""What a conversation is made of: its context, a turn being heard, a reply being given."""
