"""Between the domain's values and the generated messages. A leaf: it decides nothing and reads nothing."""
