"""Talk to the manager over HTTP: client, retries, and circuit breaker."""
