"""Plan, and the stage functions that join the rooms and write the ledger.

A stage is a plain function ``(item, context) -> outcome``, so the same function runs from the CLI, in a Prefect task,
on a Dask worker and in a test.
"""
