"""Running networks over tensors: tiles, precision, planes in and planes out. No files."""
