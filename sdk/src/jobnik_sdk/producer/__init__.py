"""Creating work, watching it and steering it."""

from jobnik_sdk.producer.producer import Producer
from jobnik_sdk.producer.streams import StreamProgress

__all__ = ["Producer", "StreamProgress"]
