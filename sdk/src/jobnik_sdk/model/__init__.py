"""Job types, stage types, entities, and payloads."""
