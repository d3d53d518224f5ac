"""What a search was asked for and what it has done so far: settings, units of work, records, budget."""
