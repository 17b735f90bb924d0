"""Whether a schema may follow others: levels, pairs of readers and writers, findings."""
