"""Raw files in, one lazy form out: channel table, rate, events, facts, and blocks of samples on demand.

``neuromill.readers.opening.open_recording`` is the door; importing this package alone loads neither MNE nor numpy.
"""
