"""Task files: read as they come, asked of models, scored with how sure the score is.

kinds    what an item and a task are           core      what CORE (DCLM) says of its files
read     jsonl and parquet -> tasks            requests  items -> pairs of context, continuation
match    is a reply right, is it a refusal     likelihood, generate: the two ways to ask
"""
