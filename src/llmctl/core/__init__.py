"""What every other room stands on: settings, errors, files, signals, talk."""
