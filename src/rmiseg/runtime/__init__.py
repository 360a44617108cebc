"""Services of machine and system: devices, processes, signals, files, progress."""
