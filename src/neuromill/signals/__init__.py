"""Preprocessing: typed steps, a chain planned from them, and its run over blocks in bounded memory.

``steps`` holds the models a pipeline file is read into, ``chain`` plans and runs them (``plan_chain``,
``run_chain``). Nothing here knows files: a chain is given a function that reads samples.
"""
