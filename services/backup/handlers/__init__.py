"""One module a service of the contract: decode, call, encode."""
