"""The commands, one in a module, and what they share: options, files, progress, tables."""
