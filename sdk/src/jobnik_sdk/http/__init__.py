"""HTTP access to the manager: client, retries and circuit breaker."""
