"""The protocol over HTTP: what comes in is validated here, what goes out is the engine's JSON as it is."""
