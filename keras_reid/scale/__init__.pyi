from .embedding import embed as embed
from .registry import ENGINES as ENGINES
from .shards import Shard as Shard
from .shards import Shards as Shards
