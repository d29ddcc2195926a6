"""What producers and workers share: job and stage types, entities, and payloads."""
