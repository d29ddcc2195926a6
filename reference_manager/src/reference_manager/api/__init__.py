"""The protocol over HTTP. Requests are validated here; responses carry the JSON of the engine unchanged."""
