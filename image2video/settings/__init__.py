"""What trainings and searches are asked for. The command line shows these in its help: nothing here imports torch."""
