"""What the help of each command needs: its options, their defaults and an example. Nothing here imports torch."""
