"""What the program asks of the machine it runs on: device, disk, memory, terminal, web, and files of tensors."""
