"""How often each word occurs in each index version: counted, kept exact, published for ranking.

Nothing of it stands in the way of a write. A pass lists what the store holds, compares that with a
ledger of what was counted, and publishes the sum; so whatever happened in between, also a crash at
any moment, the next pass ends in what a recount would give.
"""

from indexer.word_counts.counter import Counter, WordCounter
from indexer.word_counts.counting import Counting
from indexer.word_counts.ledgers import Ledgers
from indexer.word_counts.publisher import Publisher

__all__ = ["Counter", "Counting", "Ledgers", "Publisher", "WordCounter"]
