"""Messages of the contract, made of the domain's words and read into them."""
