"""The miniature: a small VITA-1.5 trained from nothing on synthetic speech, drawn pictures and a closed curriculum."""
