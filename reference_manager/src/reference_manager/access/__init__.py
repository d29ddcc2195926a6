"""Access: tokens, their scopes and limits, and who sent a request."""
