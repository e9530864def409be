"""What comes from the library webdataset, an extra of this package: names of shards, grouping of keys, writing."""

try:
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys
    from webdataset.writer import TarWriter
except ImportError as error:
    raise ImportError("shards need the library webdataset: pip install -e '.[webdataset]'") from error

__all__ = ["TarWriter", "expand_urls", "group_by_keys"]
