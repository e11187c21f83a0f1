"""What every call under `/v1` shares: envelope, errors, paging, strict parsing, idempotency's hook."""
