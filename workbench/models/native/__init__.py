"""The compiled pass on the CPU: its kernel, the weights it reads, and when it may run."""
