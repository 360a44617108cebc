"""What `rmiseg bench` measures, and how."""
