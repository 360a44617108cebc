"""What programs need of machine and system: devices, processes, signals, files, progress."""
