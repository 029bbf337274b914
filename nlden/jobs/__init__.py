"""Jobs: files in, files out."""
