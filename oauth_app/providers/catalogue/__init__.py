"""The records of the providers beyond the first five, by what they are used for."""
