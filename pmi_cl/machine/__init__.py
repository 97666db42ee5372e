"""Talk to the machine that the program runs on: device, memory, disk, terminal, web."""
