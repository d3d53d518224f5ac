"""The optimisation behind a search: bilevel steps, epochs, schedules, memory."""
