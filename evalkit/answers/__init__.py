"""What models said: test set, endpoint, journal, asking, scoring, and the one join of two models' answers."""
