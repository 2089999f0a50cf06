"""Where bytes come from: one module per archive, one protocol (``protocol.Source``)."""
