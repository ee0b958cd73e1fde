"""What every part of the package uses: files written as a whole, processes and devices, errors, signals."""
