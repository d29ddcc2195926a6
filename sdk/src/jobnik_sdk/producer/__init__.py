"""Creates, reads, watches and controls jobs, stages and tasks."""

from jobnik_sdk.producer.producer import Producer
from jobnik_sdk.producer.streams import StreamProgress
from jobnik_sdk.producer.sync_producer import SyncProducer

__all__ = ["Producer", "StreamProgress", "SyncProducer"]
