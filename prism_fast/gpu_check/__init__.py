"""The first day on a card: every part of the project on a GPU, a step at a time, each in a process of its own."""
