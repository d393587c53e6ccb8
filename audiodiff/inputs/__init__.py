"""What people hand in: files and short texts, read into a :class:`audiodiff.sketch.Sketch`."""
