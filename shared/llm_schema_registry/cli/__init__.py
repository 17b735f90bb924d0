"""`llmsr`, the command line: one module a noun, a frame that they share. The only place of the package that prints."""
