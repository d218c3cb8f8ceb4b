from .embedding import embed
from .registry import ENGINES
from .shards import Shard, Shards

__all__ = ["ENGINES", "Shard", "Shards", "embed"]
