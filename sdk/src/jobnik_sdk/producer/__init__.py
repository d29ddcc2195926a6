"""Creates, reads, watches and controls jobs, stages and tasks."""

from jobnik_sdk.producer.blocking.producer import SyncProducer
from jobnik_sdk.producer.producer import Producer
from jobnik_sdk.producer.streams import StreamProgress

__all__ = ["Producer", "StreamProgress", "SyncProducer"]
