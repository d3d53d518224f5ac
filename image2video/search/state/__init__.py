"""What a search was asked for and what it has done so far: settings, units of work, records, budget, seeds.

It stands on the cell, whose decisions are part of the records; whatever trains, ranks or selects reads and writes it.
"""
