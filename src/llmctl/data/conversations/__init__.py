"""Conversations of anybody: our parquet, messages, ShareGPT, Alpaca, OASST trees, GSM8K, pairs."""

from llmctl.data.conversations.reader import (
    Conversation,
    Conversations,
    SourceSpec,
    parse_source,
    read_conversations,
)

__all__ = ["Conversation", "Conversations", "SourceSpec", "parse_source", "read_conversations"]
