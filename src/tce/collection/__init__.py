"""The collection: footage packed into Lance tables, and batches out of them."""
