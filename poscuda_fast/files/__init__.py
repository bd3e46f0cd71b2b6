"""Audio files, alone or in folders: what they hold, how they are edited, and the verbs that protect them."""
