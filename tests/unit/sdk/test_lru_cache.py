"""The cache of a worker's stages."""

from jobnik_sdk.worker.lru_cache import LruCache


def test_the_entry_that_was_not_used_for_the_longest_time_is_evicted() -> None:
    """Both reading and storing an entry count as using it."""
    cache: LruCache[str, int] = LruCache(max_size=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.put("a", 4)
    cache.put("d", 5)
    assert (cache.get("a"), cache.get("c"), cache.get("d")) == (4, None, 5)
