"""One short run on a GPU: is everything right there, how fast is it, where does the time go?"""
