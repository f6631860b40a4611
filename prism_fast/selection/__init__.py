"""Which of a finished run's samples a student is trained on."""
