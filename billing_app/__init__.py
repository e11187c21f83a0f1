"""Who the customer is, and what their plan allows."""
