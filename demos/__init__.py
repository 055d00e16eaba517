"""Programs made of the other rooms: the small checkpoint that ships, assistants to start from."""
