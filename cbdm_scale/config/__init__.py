"""What a run is: its options, the paper's rows, preset files, what was typed."""
