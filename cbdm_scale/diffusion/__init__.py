"""The maths of noise.

options     which process, and its numbers
process     what losses and samplers know of noise, whichever process makes it
schedule    the process of DDPM
edm         the process of EDM
build       from options to process
denoiser    what every network is: the noise predicted in x, given level and label
labels      class frequencies, and labels drawn from them
rng         random numbers that follow the image, not the worker
rng_kernel  its normal numbers on a GPU, in one kernel
kernels     whether the project's own kernels are used
"""
