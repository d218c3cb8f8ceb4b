from .embedding import ENGINES, embed
from .shards import Shard, Shards

__all__ = ["ENGINES", "Shard", "Shards", "embed"]
