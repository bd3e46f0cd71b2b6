"""What protection does to the sound."""
