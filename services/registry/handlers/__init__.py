"""The contract's services: decode, call a use case, encode."""
