"""What a backup is, in words and rules alone: nothing here waits, opens or asks the clock."""
