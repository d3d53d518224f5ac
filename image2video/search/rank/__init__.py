"""Rankings of whole chains under given weights.

They stand on spaces, cell (for its law of random chains) and scores, and need no search: `rank_genotypes` is one call.
"""
