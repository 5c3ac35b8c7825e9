"""What an experiment is: its configuration, and how a configuration is set, kept and compared."""
