"""`sottovoce profile`: where the time, the memory and the energy of a turn go, and how near the machine's limits."""
