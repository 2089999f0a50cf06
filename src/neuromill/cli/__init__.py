"""The command line: one verb, one library function. Nothing here computes; everything here is shown."""
