"""Work that outlives the call that began it: operations on record in an object store, and leases beside them."""
