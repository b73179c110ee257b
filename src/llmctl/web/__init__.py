"""From crawl records to clean documents: readers, filters, deduplication, personal data.

Room 3: plain values in, plain values out; nothing here knows the command line.
`recipe.run_recipe` is the entry; every other module holds one kind of datatrove block or one
format.
"""
