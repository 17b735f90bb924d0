"""RPC methods: decode, call, encode."""
