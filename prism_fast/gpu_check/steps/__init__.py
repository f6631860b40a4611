"""One step a file; each has ``check(options)``, which takes its device from the options: the CPU, too."""
