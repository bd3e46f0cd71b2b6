"""Models trained on marked clips, and tested on clean ones."""
