"""What a run is: its options, the paper's presets, files of options, what was typed.

schema         a run as one value, from the options of every part
paper          the settings that the rows of a table share
presets        a preset for each row of the paper's tables, and for one's own data
preset_file    a preset of one's own: the file that a search writes, a run's config.json
overrides      other values of some options, by dotted name
run_options    from what was typed to a configuration, and which options were chosen
"""
