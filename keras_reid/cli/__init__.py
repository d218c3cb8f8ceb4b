"""The commands: absl flags in, library calls, files and tables out."""
