"""What there is and what was done with it: cards, discovery, the recording index, queries, the ledger."""
