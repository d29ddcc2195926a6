"""The queues: claims, reports and depth."""
