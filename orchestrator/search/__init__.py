"""What comes next: the study, its samplers and the hours that it may spend."""
