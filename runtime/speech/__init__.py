"""Speech on its way out: text pieces to codes, codes to samples, samples to what was heard."""
